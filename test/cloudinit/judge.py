"""Has a real cloud-init's modules judge values: a JSON list of [question, ...arguments] in, a JSON list of answers out."""

import json
import logging
import sys
from email.mime.multipart import MIMEMultipart

from cloudinit import atomic_helper, helpers, user_data, util
from cloudinit.config import cc_power_state_change, cc_write_files
from cloudinit.config.schema import SchemaValidationError, validate_cloudconfig_schema
from cloudinit.distros import ug_util
from cloudinit.reporting import handlers

logging.disable(logging.CRITICAL)
SCHEMAS = {}


class Distro:
    shutdown_options_map = {"halt": "-H", "poweroff": "-P", "reboot": "-r"}

    def get_default_user(self):
        return {"name": "debian"}

    def shutdown_command(self, *, mode, delay, message):
        return ["shutdown", mode, delay if delay == "now" else "+%d" % int(delay)]


def top(problems):
    return sorted({path.split(".")[0] for path, _ in problems or []})


def schema(path, text):
    """The top-level keys with errors, and those with deprecations, by cloud-init's own validator."""
    config = util.load_yaml(text)
    with open(path, encoding="utf-8") as file:
        loaded = SCHEMAS.setdefault(path, json.load(file))
    try:
        validate_cloudconfig_schema(config, schema=loaded, strict=True)
    except SchemaValidationError as error:
        return [top(error.schema_errors), top(error.schema_deprecations)]
    return [[], []]


def combined(text):
    """As 25.1 writes the merged cloud-config (stages.py, consume_data): 22.4 has the same function, and uses it elsewhere."""
    dumps = getattr(util, "json_dumps", None) or atomic_helper.json_dumps
    dumps({**util.load_yaml(text), "_doc": "of the system"})
    return "written"


def commands(text):
    return util.shellify(util.load_yaml(text, allowed=(list,)))


def permissions(text):
    return cc_write_files.decode_perms(util.load_yaml(text)["permissions"], 0o644)


def content(text):
    entry = util.load_yaml(text)
    contents = cc_write_files.extract_contents(
        entry["content"], cc_write_files.canonicalize_extraction(entry["encoding"])
    )
    return repr(contents)


def default_user(text):
    users, _ = ug_util.normalize_users_groups(util.load_yaml(text), Distro())
    return ug_util.extract_default(users)[0]


def boolean(text):
    return util.get_cfg_option_bool(util.load_yaml(text), "a")


def bytes_of(text):
    return util.human2bytes(util.load_yaml(text)["a"])


def power_state(text):
    return list(cc_power_state_change.load_power_state(util.load_yaml(text), Distro())[:2])


def webhook(text):
    entry = util.load_yaml(text)
    entry.pop("type")
    handlers.WebHookHandler(**entry)
    return "taken"


def archive(text):
    outer = MIMEMultipart()
    user_data.UserDataProcessor(helpers.Paths({"cloud_dir": "/nowhere"}))._explode_archive(text, outer)
    return [part.get_content_type() for part in outer.get_payload() or []]


def answer(question, *arguments):
    try:
        return globals()[question](*arguments)
    except Exception as error:
        return {"raised": type(error).__name__}


print(json.dumps([answer(*each) for each in json.load(sys.stdin)]))
