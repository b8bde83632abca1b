"""gunicorn's configuration file for `aibridge serve`, which passes its path: as a module, it would import the
package before gevent has patched the standard library.
"""

from gevent import monkey

monkey.patch_all()  # before anything imports `requests`

from aibridge_flask.serving.configuration import configure

globals().update(configure())
