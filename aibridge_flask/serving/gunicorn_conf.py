"""gunicorn's configuration file inside the package, for servers that other commands start.

gunicorn executes it as a file: to import it as a module would import the bridge before it is patched.
"""

from gevent import monkey

monkey.patch_all()  # before anything imports `requests`

from aibridge_flask.serving.configuration import configure

globals().update(configure())
