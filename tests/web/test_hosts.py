"""The records API in an application that has an API of its own."""

from __future__ import annotations

from pathlib import Path

import flask_smorest
import marshmallow
from flask import Flask
from flask.testing import FlaskClient

from aibridge_flask import AIBridge
from tests.support.server import PREFIX


class Pet(marshmallow.Schema):
    name = marshmallow.fields.String()


def host(tmp_path: Path, config_prefix: str = "") -> Flask:
    app = Flask("host")
    app.config |= {
        "AIBRIDGE": {"database_url": f"sqlite:///{tmp_path}/r.db", "spool_dir": str(tmp_path / "spool")},
        f"{config_prefix}API_TITLE": "Pets",
        f"{config_prefix}API_VERSION": "1",
        f"{config_prefix}OPENAPI_VERSION": "3.0.3",
        f"{config_prefix}OPENAPI_URL_PREFIX": "/docs",
    }
    return app


def add_pets(app: Flask, config_prefix: str = "") -> None:
    api = flask_smorest.Api(app, config_prefix=config_prefix)
    pets = flask_smorest.Blueprint("pets", "pets", url_prefix="/pets")

    @pets.route("/")
    @pets.arguments(Pet, location="query")
    @pets.response(200, Pet)
    def get(arguments: dict[str, str]) -> dict[str, str]:
        return arguments

    api.register_blueprint(pets)


def close(app: Flask) -> None:
    app.extensions["aibridge"].close(app)


def test_the_hosts_404_page_stays(tmp_path: Path) -> None:
    app = host(tmp_path)
    app.register_error_handler(404, lambda error: ("nothing here", 404))
    AIBridge(app)
    client = app.test_client()
    assert client.get(f"{PREFIX}/openapi.json").status_code == 200
    assert (client.get("/nowhere").text, client.get("/nowhere").status_code) == ("nothing here", 404)
    missing = client.get(f"{PREFIX}/interceptions/nobody")
    assert (missing.status_code, missing.get_json()["message"]) == (404, "there is no such interception")
    close(app)


def check_pets(client: FlaskClient) -> None:
    assert client.get("/pets/?name=rex").get_json() == {"name": "rex"}
    document = client.get("/docs/openapi.json").get_json()
    assert (document["info"]["title"], [*document["paths"]]) == ("Pets", ["/pets/"])
    ours = client.get(f"{PREFIX}/openapi.json").get_json()
    assert ours["info"]["title"] == "AI Bridge"
    assert all(path.startswith(PREFIX) for path in ours["paths"])


def test_the_hosts_own_api_stays_whichever_comes_first(tmp_path: Path) -> None:
    for number, prefix in enumerate(("", "AIBRIDGE_", "")):
        folder = tmp_path / str(number)
        folder.mkdir()
        app = host(folder, prefix)
        if number < 2:
            add_pets(app, prefix)
            AIBridge(app)
        else:
            AIBridge(app)
            add_pets(app, prefix)
        check_pets(app.test_client())
        close(app)


def test_the_hosts_commands_and_extensions_stay(tmp_path: Path) -> None:
    app = host(tmp_path)
    AIBridge(app)
    assert app.test_client().get(f"{PREFIX}/openapi.json").status_code == 200
    assert "openapi" not in app.cli.commands
    assert "flask-smorest" not in app.extensions
    close(app)


def test_what_the_hosts_loader_raises_is_for_the_hosts_handlers(tmp_path: Path) -> None:
    app = host(tmp_path)
    bridge = AIBridge(app)

    @bridge.actor_loader
    def load(request: object) -> None:
        raise OSError("the directory of users is away")

    app.register_error_handler(OSError, lambda error: ("ask later", 502))
    response = app.test_client().get(f"{PREFIX}/interceptions")
    assert (response.text, response.status_code) == ("ask later", 502)
    close(app)


def test_it_is_served_on_every_host_of_an_application_that_matches_hosts(tmp_path: Path) -> None:
    app = Flask("host", host_matching=True, static_host="static")
    app.config["AIBRIDGE"] = {
        "database_url": f"sqlite:///{tmp_path}/r.db",
        "spool_dir": str(tmp_path / "spool"),
    }
    AIBridge(app)
    client = app.test_client()
    for path in ("/interceptions", "/openapi.json"):
        assert client.get(PREFIX + path, headers={"Host": "localhost:8080"}).status_code == 200
    close(app)
