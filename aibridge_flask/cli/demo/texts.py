"""What the made-up people and models write."""

from __future__ import annotations

_TASKS = (
    "Find out why {} is slow, and mend it.",
    "Write tests for {}.",
    "Rename the confusing names in {}.",
    "Why does {} fail since yesterday?",
    "Add a retry with back-off to {}.",
    "Explain what {} does, in five sentences.",
    "Split {} into two modules.",
    "Update {} to the new API.",
    "Review my change of {}.",
    "Make {} work on Windows, too.",
)
_THINGS = (
    "the invoice export",
    "the login page",
    "the image resizer",
    "the search index",
    "the order queue",
    "the price calculation",
    "the mail templates",
    "the nightly backup",
    "the address parser",
    "the report generator",
    "the settings dialog",
    "the payment webhook",
)
PROMPTS = tuple(task.format(thing) for task in _TASKS for thing in _THINGS)
TITLE_PROMPT = "Write a title of at most six words for: {}"
THOUGHTS = (
    "The test fails before the change, too, so the cause is elsewhere. I look at the caller first.",
    "Two functions do nearly the same. I should check which of them is used before I touch either.",
    "The log says the time-out comes from the pool, not from the query. A larger pool would only hide it.",
    "I have what I need. A small change in one place is enough, then the tests.",
)
TOOLS = {
    "Read": 8.0,
    "Bash": 6.0,
    "Edit": 5.0,
    "Grep": 5.0,
    "Write": 1.0,
    "WebFetch": 0.5,
    "search_docs": 1.0,
}
INPUTS = (
    '{"file_path":"src/orders/queue.py","limit":200}',
    '{"command":"pytest -q tests/orders","timeout":120000}',
    '{"pattern":"def retry","path":"src","output_mode":"content"}',
    '{"query":"retry with exponential back-off"}',
)
SERVER_URL = "http://127.0.0.1:9000/mcp"
FAILURES = (
    ("overloaded", 529, "Overloaded"),
    ("rate_limited", 429, "all configured keys are rate-limited (retry after 12s)"),
    ("bad_request", 400, "prompt is too long: 214332 tokens > 200000 maximum"),
    ("client_closed", 200, "the client closed the connection"),
    ("server_error", 500, "Internal server error"),
    ("timeout", 504, "the upstream did not answer in time"),
    ("limit", 429, "the limit of this week is used up"),
)
