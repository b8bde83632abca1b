"""What to set where, for each client. Plain text: the command line and pages show it.

A guide names `<anthropic>` (without /v1, as Anthropic's SDKs want it), `<openai>` (with /v1) and `<token>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..config import Settings

LOCAL_TOKEN = "aib_local"  # noqa: S105 - some clients insist on a key; mode `local` looks at none
SHOWN_TOKEN = "$AIBRIDGE_TOKEN"  # noqa: S105
_ANTHROPIC_TYPES, _OPENAI_TYPES = ("anthropic", "bedrock"), ("openai",)


class Guide(NamedTuple):
    """`where` is a file or a place in the client; `text` is what to put there."""

    client: str
    title: str
    where: str
    text: str

    def told(self) -> str:
        return f"{self.title}: {self.where}\n\n{self.text}"


class Urls(NamedTuple):
    """The base URLs of the first enabled providers that speak these APIs; empty: there is none."""

    anthropic: str
    openai: str


_CLAUDE_DESKTOP = """\
Gateway URL: <anthropic>
API key: <token>
Auth scheme: bearer"""
_CODEX = """\
model_provider = "aibridge"

[model_providers.aibridge]
name = "AI Bridge"
base_url = "<openai>"
wire_api = "responses"
http_headers = { "X-AIBridge-Token" = "<token>" }"""
_OPENCODE = """\
{
  "provider": {
    "anthropic": { "options": { "baseURL": "<anthropic>/v1", "apiKey": "<token>" } },
    "openai": { "options": { "baseURL": "<openai>", "apiKey": "<token>" } }
  }
}"""
_ZED = """\
{
  "language_models": {
    "anthropic": { "api_url": "<anthropic>" },
    "openai": { "api_url": "<openai>" }
  }
}
API key, in the agent panel's settings: <token>"""
_OPENAI_COMPATIBLE = """\
API provider: OpenAI Compatible
Base URL: <openai>
API key: <token>
or
API provider: Anthropic, with "Use custom base URL"
Base URL: <anthropic>
API key: <token>"""
_CONTINUE = """\
models:
  - name: Claude (AI Bridge)
    provider: anthropic
    model: claude-sonnet-5-5
    apiBase: <anthropic>/v1/
    apiKey: <token>
  - name: GPT (AI Bridge)
    provider: openai
    model: gpt-5
    apiBase: <openai>
    apiKey: <token>"""
_GOOSE = """\
GOOSE_PROVIDER=anthropic
ANTHROPIC_HOST=<anthropic>
ANTHROPIC_API_KEY=<token>
or
GOOSE_PROVIDER=openai
OPENAI_HOST=<openai-root>
OPENAI_BASE_PATH=v1/chat/completions
OPENAI_API_KEY=<token>"""
_CRUSH = """\
{
  "providers": {
    "aibridge-anthropic": { "type": "anthropic", "base_url": "<anthropic>", "api_key": "<token>" },
    "aibridge-openai": { "type": "openai", "base_url": "<openai>", "api_key": "<token>" }
  }
}"""
_VSCODE_COPILOT = """\
[
  {
    "name": "AI Bridge", "vendor": "customoai", "apiKey": "<token>",
    "models": [
      { "id": "gpt-5", "name": "GPT-5 (AI Bridge)", "url": "<openai>/responses", "toolCalling": true,
        "vision": true, "maxInputTokens": 272000, "maxOutputTokens": 128000 }
    ]
  }
]"""
_JUNIE = """\
{ "id": "claude-sonnet-5-5", "apiType": "Anthropic",
  "baseUrl": "<anthropic>/v1/messages", "apiKey": "<token>" }
Start it with: junie --model custom:aibridge"""
_FACTORY = """\
{
  "customModels": [
    { "model": "claude-sonnet-5-5", "displayName": "Claude (AI Bridge)", "provider": "anthropic",
      "baseUrl": "<anthropic>", "apiKey": "<token>" },
    { "model": "gpt-5", "displayName": "GPT-5 (AI Bridge)", "provider": "openai",
      "baseUrl": "<openai>", "apiKey": "<token>" }
  ]
}"""
_CURSOR = """\
OpenAI API Key: <token>
Override OpenAI Base URL: <openai>
The requests come from Cursor's servers: the address must be public.
There is no such setting for Anthropic."""
_CLAUDE_CODE = """\
ANTHROPIC_BASE_URL=<anthropic>
ANTHROPIC_AUTH_TOKEN=<token>"""
_AIDER = """\
OPENAI_API_BASE=<openai>
OPENAI_API_KEY=<token>
Start it with: aider --model openai/gpt-5"""
_COPILOT_CLI = """\
COPILOT_PROVIDER_TYPE=openai
COPILOT_PROVIDER_BASE_URL=<openai>
COPILOT_PROVIDER_API_KEY=<token>
COPILOT_MODEL=gpt-5"""
_JETBRAINS = """\
URL: <openai>
API key: <token>"""
_ANTHROPIC_SDK = """\
ANTHROPIC_BASE_URL=<anthropic>
ANTHROPIC_AUTH_TOKEN=<token>
or
Anthropic(base_url="<anthropic>", auth_token="<token>")"""
_OPENAI_SDK = """\
OPENAI_BASE_URL=<openai>
OPENAI_API_KEY=<token>
or
OpenAI(base_url="<openai>", api_key="<token>")"""
_VERCEL = """\
createAnthropic({ baseURL: "<anthropic>/v1", authToken: "<token>" })
createOpenAI({ baseURL: "<openai>", apiKey: "<token>" })"""
_LANGCHAIN = """\
ChatAnthropic(model="claude-sonnet-5-5", base_url="<anthropic>", api_key="<token>")
ChatOpenAI(model="gpt-5", base_url="<openai>", api_key="<token>", use_responses_api=True)"""
_LLM = """\
- model_id: bridge-gpt-5
  model_name: gpt-5
  api_base: <openai>
  api_key_name: aibridge
Then: llm keys set aibridge --value <token>"""

_ENVIRONMENT, _SETTINGS, _CODE = "the environment", "its settings", "the code"
_GUIDES = {
    "claude-code": ("Claude Code", "the environment, or `env` in ~/.claude/settings.json", _CLAUDE_CODE),
    "claude-desktop": ("Claude Desktop", "Developer → Configure Third-Party Inference", _CLAUDE_DESKTOP),
    "codex": ("Codex", "~/.codex/config.toml", _CODEX),
    "opencode": ("OpenCode", "~/.config/opencode/opencode.json", _OPENCODE),
    "zed": ("Zed", "settings.json", _ZED),
    "cline": ("Cline", _SETTINGS, _OPENAI_COMPATIBLE),
    "roo": ("Roo Code", _SETTINGS, _OPENAI_COMPATIBLE),
    "kilo": ("Kilo Code", _SETTINGS, _OPENAI_COMPATIBLE),
    "continue": ("Continue", "~/.continue/config.yaml", _CONTINUE),
    "aider": ("Aider", _ENVIRONMENT, _AIDER),
    "goose": ("goose", "the environment, or `goose configure`", _GOOSE),
    "crush": ("Crush", "~/.config/crush/crush.json", _CRUSH),
    "copilot-cli": ("GitHub Copilot CLI", _ENVIRONMENT, _COPILOT_CLI),
    "vscode-copilot": ("VS Code Copilot", "the command “Chat: Open Language Models (JSON)”", _VSCODE_COPILOT),
    "jetbrains": ("JetBrains AI Assistant", "Settings → AI Assistant → Models & API Keys", _JETBRAINS),
    "junie": ("Junie", "~/.junie/models/aibridge.json", _JUNIE),
    "factory": ("Factory droid", "~/.factory/settings.json", _FACTORY),
    "cursor": ("Cursor", "Settings → Models", _CURSOR),
    "vercel": ("Vercel AI SDK", _CODE, _VERCEL),
    "langchain": ("LangChain", _CODE, _LANGCHAIN),
    "llm": ("llm", "extra-openai-models.yaml, beside what `llm logs path` prints", _LLM),
    "anthropic-sdk": ("Anthropic SDK", "the environment, or the code", _ANTHROPIC_SDK),
    "openai-sdk": ("OpenAI SDK", "the environment, or the code", _OPENAI_SDK),
}
CLIENTS: Mapping[str, str] = {client: title for client, (title, _, _) in _GUIDES.items()}
"""The clients with their names."""


def urls_of(settings: Settings, root: str) -> Urls:
    """Returns the base URLs. `root` is what stands before the prefix, without a / at its end."""
    return Urls(*(next(_urls(settings, root, types), "") for types in (_ANTHROPIC_TYPES, _OPENAI_TYPES)))


def _urls(settings: Settings, root: str, types: tuple[str, ...]) -> Iterator[str]:
    for provider in settings.providers:
        if provider.enabled and provider.type in types:
            end = "/v1" if provider.type in _OPENAI_TYPES else ""
            yield f"{root}{settings.url_prefix}/{provider.name}{end}"


def default_token(settings: Settings) -> str:
    """Returns the token to show where none is given."""
    return SHOWN_TOKEN if settings.auth.mode == "token" else LOCAL_TOKEN


def guides(settings: Settings, root: str) -> list[Guide]:
    """Returns the guides of all clients, without anybody's token. `root` is as in `urls_of`."""
    urls, token = urls_of(settings, root), default_token(settings)
    return [guide(client, urls, token) for client in CLIENTS]


def token_note(settings: Settings) -> str:
    """Returns what the token stands for that guides without one show; "" if it is no placeholder."""
    made = "`aibridge token create --user NAME` and the dashboard's page Tokens make one."
    return f"{SHOWN_TOKEN} stands for a token: {made}" if default_token(settings) == SHOWN_TOKEN else ""


def guide(client: str, urls: Urls, token: str) -> Guide:
    """Returns a client's guide. Raises KeyError."""
    title, where, text = _GUIDES[client]
    values = {
        "<anthropic>": urls.anthropic or "(no provider of the type anthropic or bedrock)",
        "<openai-root>": urls.openai.removesuffix("/v1") or "(no provider of the type openai)",
        "<openai>": urls.openai or "(no provider of the type openai)",
        "<token>": token,
    }
    for name, value in values.items():
        text = text.replace(name, value)
    return Guide(client, title, where, text)
