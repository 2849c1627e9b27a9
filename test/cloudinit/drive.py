"""Drives a real cloud-init, as its `init` stage does, in folders of its own: the machine's state is neither read nor written.

    drive.py FILE   consumes FILE as NoCloud user-data and prints one JSON object
    drive.py        for each JSON line on stdin, {"userData": BASE64} or {"seed": URL}, prints one JSON line; with the former may go
                    "launchIndex": NUMBER, which the meta-data then tells

Each document gets a fresh temporary folder and a fork of its own, so that no module, cache or `sys.exit()` of a part handler
reaches the next one. Part handlers run for real; scripts and boothooks are written, never run.
What the answer holds is told by `Consumed` in driver.ts. Works with cloud-init 22.4 to 25.1.
"""

import base64
import json
import logging
import os
import shutil
import sys
import tempfile
import traceback

os.environ["DEBUG_PROC_CMDLINE"] = ""  # cloud-init's own switch (util.get_cmdline): this machine's kernel line is none of its business
sys.dont_write_bytecode = True

import requests  # noqa: E402
from cloudinit import handlers, helpers, sources, stages, subp, util, version  # noqa: E402
from cloudinit.settings import PER_INSTANCE  # noqa: E402
from cloudinit.sources import DataSourceNoCloud  # noqa: E402,F401 (imported once, here, and not in each fork)

WARNING_AND_ABOVE = logging.WARNING


class Recorder:
    """Listens at cloud-init's own seams; every function it stands before is still called."""

    def __init__(self):
        self.parts, self.handlers, self.calls, self.requests, self.warnings = [], [], [], [], []
        self.source = "userdata"

    def attach(self):
        walker_callback, fixup_handler = handlers.walker_callback, handlers.fixup_handler
        register, send = helpers.ContentHandlers.register, requests.Session.send

        def seen(data, filename, payload, headers):
            self.parts.append(
                {
                    "source": self.source,
                    "type": headers["Content-Type"],
                    "filename": filename,
                    "headers": {name: str(value) for name, value in headers.items()},
                    **encoded(payload),
                }
            )
            return walker_callback(data, filename, payload, headers)

        def fixed_up(mod, *args, **kwargs):
            """A custom handler's module, right after its import: from here on its calls are written down."""
            handle_part = getattr(mod, "handle_part", None)
            if handle_part is None or getattr(handle_part, "recorded", False):
                return fixup_handler(mod, *args, **kwargs)

            def called(data, ctype, filename, payload, *rest):
                self.calls.append(
                    {"handler": mod.__name__, "type": ctype, "filename": filename, "arguments": 4 + len(rest), **encoded(payload)}
                )
                return handle_part(data, ctype, filename, payload, *rest)

            called.recorded, mod.handle_part = True, called
            return fixup_handler(mod, *args, **kwargs)

        def registered(content_handlers, mod, *args, **kwargs):
            types = register(content_handlers, mod, *args, **kwargs)
            if not isinstance(mod, handlers.Handler):
                self.handlers.append({"handler": mod.__name__, "types": sorted(types)})
            return types

        def sent(session, request, **kwargs):
            entry = {"method": request.method, "url": request.url, "headers": dict(request.headers), "status": None}
            self.requests.append(entry)
            response = send(session, request, **kwargs)
            entry["status"] = response.status_code
            return response

        handlers.walker_callback, handlers.fixup_handler = seen, fixed_up
        helpers.ContentHandlers.register, requests.Session.send = registered, sent

        log = logging.Handler(WARNING_AND_ABOVE)
        log.emit = lambda record: self.warnings.append(f"{record.name}[{record.levelname}]: {record.getMessage()}")
        logging.getLogger().handlers = [log]
        logging.getLogger().setLevel(WARNING_AND_ABOVE)


class Init(stages.Init):
    """cloud-init's own, but for where its configuration comes from: not /etc/cloud, /run or /var/lib/cloud."""

    def __init__(self, root, datasource, recorder):
        super().__init__(ds_deps=[sources.DEP_FILESYSTEM, sources.DEP_NETWORK])
        self._recorder = recorder
        own = {
            "datasource_list": ["NoCloud"],
            "datasource": {"NoCloud": {"fs_label": None, **datasource}},
            "def_log_file": "",
            "system_info": {
                "distro": "debian",
                "paths": {"cloud_dir": f"{root}/cloud", "run_dir": f"{root}/run", "templates_dir": f"{root}/templates"},
            },
        }
        self._base = util.mergemanydict([own, util.get_builtin_cfg()])

    def _read_cfg(self, extra_fns):
        paths = helpers.Paths(self._base["system_info"]["paths"], self.datasource)
        return helpers.ConfigMerger(
            paths=paths, datasource=self.datasource, additional_fns=extra_fns, base_cfg=self._base
        ).cfg

    def _consume_vendordata(self, vendor_source, *args, **kwargs):
        self._recorder.source = vendor_source
        return super()._consume_vendordata(vendor_source, *args, **kwargs)


def consume(request, root):
    """The steps of cmd/main.py's main_init, from the datasource to consume_data, on one document."""
    recorder = Recorder()
    recorder.attach()
    hooks = []

    def no_command(args, *_args, **_kwargs):
        """Boothooks seem to succeed; a command that looks at this machine is not found."""
        if str(args[0]).startswith(root):
            hooks.append({"filename": os.path.basename(str(args[0])), **encoded(read(args[0]))})
            return subp.SubpResult("", "") if hasattr(subp, "SubpResult") else ("", "")
        raise subp.ProcessExecutionError(cmd=args, exit_code=127)

    subp.subp = no_command
    os.makedirs(f"{root}/cloud/seed/nocloud")
    os.makedirs(f"{root}/run")
    datasource = {}
    if "seed" in request:
        datasource["seedfrom"] = request["seed"]
    else:
        launch_index = b"launch-index: %d\n" % request["launchIndex"] if "launchIndex" in request else b""
        write(f"{root}/cloud/seed/nocloud/meta-data", b"instance-id: iid-test\nlocal-hostname: node\n" + launch_index)
        write(f"{root}/cloud/seed/nocloud/user-data", base64.b64decode(request["userData"]))

    init, failure = Init(root, datasource, recorder), None
    try:
        init.initialize()
        init.fetch(existing="check")
        init.instancify()
        init.setup_datasource()
        init.update()
        init.cloudify().run("consume_data", init.consume_data, args=[PER_INSTANCE], freq=PER_INSTANCE)
    except Exception as error:  # what ends the stage on a machine, too
        failure = f"{type(error).__name__}: {error}"

    instance, config = f"{root}/cloud/instance", f"{root}/cloud/instance/cloud-config.txt"
    text = read(config).decode() if os.path.exists(config) else ""
    return {
        "version": version.version_string(),
        "failure": failure,
        "metaData": init.datasource.metadata if init.datasource else None,
        "parts": recorder.parts,
        "handlers": recorder.handlers,
        "calls": recorder.calls,
        "scripts": files(f"{instance}/scripts"),
        "perBoot": files(f"{root}/cloud/scripts/per-boot"),
        "perInstance": files(f"{root}/cloud/scripts/per-instance"),
        "perOnce": files(f"{root}/cloud/scripts/per-once"),
        "boothooks": files(f"{instance}/boothooks"),
        "hooks": hooks,
        "config": util.load_yaml(text, default={}),
        "configText": text,
        "requests": recorder.requests,
        "warnings": recorder.warnings,
    }


def encoded(payload):
    """A payload as JSON can carry it; `text` says that cloud-init handed out a str."""
    if not isinstance(payload, (str, bytes)):  # nothing at all, or (from an archive) any value of YAML
        return {"text": False, "payload": None}
    text = isinstance(payload, str)
    return {"text": text, "payload": base64.b64encode(payload.encode("utf-8", "surrogateescape") if text else payload).decode()}


def files(folder):
    """The plain files of a folder in the order in which run-parts would run them (subp.runparts: sorted by name)."""
    if not os.path.isdir(folder):
        return []
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return [
        {"filename": os.path.basename(path), "executable": os.access(path, os.X_OK), **encoded(read(path))}
        for path in paths
        if os.path.isfile(path)
    ]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def answer(request):
    """One JSON line for one request, made by a fork in a temporary folder; `output` is what handlers wrote to stdout or stderr."""
    root = tempfile.mkdtemp(prefix="bootbundle-cloud-init-")
    try:
        child = os.fork()
        if child == 0:
            try:
                output = os.open(f"{root}/output", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
                os.dup2(output, 1)
                os.dup2(output, 2)
                result = consume(request, root)
                sys.stdout.flush()
                sys.stderr.flush()
                result["output"] = read(f"{root}/output").decode("utf-8", "replace")
                write(f"{root}/answer", json.dumps(result, default=str).encode())
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        if os.path.exists(f"{root}/answer"):
            return read(f"{root}/answer").decode()
        return json.dumps({"driverError": read(f"{root}/output").decode("utf-8", "replace")})
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main():
    if len(sys.argv) > 1:
        print(answer({"userData": base64.b64encode(read(sys.argv[1])).decode()}))
        return
    print(json.dumps({"ready": version.version_string()}), flush=True)
    for line in sys.stdin:
        print(answer(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
