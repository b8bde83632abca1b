"""How gunicorn serves the bridge. Import only after gevent has patched the standard library."""
