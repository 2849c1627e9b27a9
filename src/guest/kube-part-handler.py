#part-handler
"""Lays Kubernetes manifests down for bootbundle-apply, which applies them once Kubernetes is up.

cloud-init calls handle_part in the middle of the boot, long before Kubernetes runs: so nothing here waits for it. Each part
becomes a file in /var/lib/bootbundle/manifests/pending; after the last one the applier, which is inside this file, is
installed with its systemd units and started without waiting. What fails is logged here (and in /var/log/bootbundle.log)
and reported to the service, since cloud-init tells nobody.

Standard library only; runs on Python 3.4 and later, and Python 2.7 can parse it. BOOTBUNDLE_ROOT stands for / in tests.
"""
from __future__ import print_function

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
import types
import uuid

# Filled in by handler.ts.
APPLIER = r'''{bootbundle-apply}'''
PATH_UNIT = r'''{bootbundle-apply.path}'''
SERVICE_UNIT = r'''{bootbundle-apply.service}'''

# What the applier knows of folders, settings, logs and reports serves here too.
apply = types.ModuleType('bootbundle_apply')
exec(compile(APPLIER, 'bootbundle-apply', 'exec'), apply.__dict__)
log = apply.log

# /usr is read-only on Fedora Atomic, CoreOS and the like, and /usr/local is not always a way around it; /var can be written
# everywhere. It is run as `python3 FILE`, so neither noexec nor a label for programs matters.
PROGRAM = os.path.join(apply.HOME, 'bootbundle-apply')
UNITS = os.path.join(apply.ROOT, 'etc/systemd/system')
PER_BOOT = os.path.join(apply.ROOT, 'var/lib/cloud/scripts/per-boot/bootbundle-apply')
PYTHON = sys.executable or '/usr/bin/python3'

# Seconds for all calls of systemctl, and for sending reports, together.
SYSTEMCTL_PATIENCE = 5
REPORT_PATIENCE = 2

NAME_MOST = 100


def list_types():
    return [
        "text/x-kube-pod",
        "text/x-kube-service",
        "text/x-kube-replica",
        "text/x-kube-manifest",
        "text/x-bootbundle-config",
    ]


def handle_part(data, ctype, filename, payload, frequency=None):
    """Called by cloud-init: at the beginning, for each part in order, at the end. Never raises."""
    try:
        if ctype == '__begin__':
            begin()
        elif ctype == '__end__':
            end()
        elif ctype == 'text/x-bootbundle-config':
            configure(bytes_of(payload))
        else:
            spool(ctype, filename, bytes_of(payload))
    except Exception as error:
        complain(filename or 'kube-part-handler', b'', 'the part could not be handled: %s' % say(error))


class Run(object):
    """What this call of the handler has done so far."""

    def __init__(self):
        # The last file name that was taken as it is, the last one given, and how many were made up after the former.
        self.base = ''
        self.last = ''
        self.made_up = 0
        self.config = apply.read_config()
        self.reports = []
        self.deadline = None
        self.left_running = []


run = Run()


def begin():
    run.__init__()
    apply.log_to_file()
    try:
        apply.make_folders()
    except (IOError, OSError) as error:
        complain('kube-part-handler', b'', 'the folders in %s cannot be made: %s' % (apply.HOME, say(error)))


def bytes_of(payload):
    """The payload as it was sent. cloud-init hands text over as str, with what is not UTF-8 as surrogates."""
    if payload is None or isinstance(payload, bytes):
        return payload or b''
    try:
        return payload.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError:
        return payload.encode('utf-8', 'surrogatepass')


def say(error):
    """An error in words without what it was about: file names may be odd, contents secret."""
    return getattr(error, 'strerror', None) or error.__class__.__name__


def configure(body):
    """Keeps the text/x-bootbundle-config part, which comes before the manifests."""
    try:
        config = apply.json.loads(body.decode('utf-8'))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        return complain('kube-part-handler', body, 'the config part is not a JSON object: defaults are used')
    run.config = config
    for word in apply.settings(config)[1]:
        complain('kube-part-handler', body, word)
    try:
        forget_other_machine(config)
        apply.write_file(apply.CONFIG, body)
        apply.sync_folder(apply.HOME)
    except (IOError, OSError) as error:
        complain('kube-part-handler', body, 'the config part cannot be written: %s' % say(error))


def forget_other_machine(config):
    """On a disk made from another machine, what that one had still to apply and to report is not this one's."""
    mine, other = (
        instance.get('id') if isinstance(instance, dict) else None
        for instance in (config.get('instance'), apply.read_config().get('instance'))
    )
    if not mine or not other or mine == other:
        return
    log.warning('this disk was another machine\'s: what that one had pending is put aside')
    for folder in (os.path.dirname(apply.PENDING), apply.REPORTS):
        os.rename(folder, '%s.other-%s' % (folder, uuid.uuid4().hex[:8]))
    apply.make_folders()


def spool_name(filename):
    """A clean file name that sorts after those before it, as the parts do; as it is where that will do."""
    name = re.sub(r'[^A-Za-z0-9._-]', '_', re.split(r'[/\\]', str(filename or ''))[-1]).lstrip('.-')
    if len(name) > NAME_MOST:
        name = name[:NAME_MOST - 9] + '-' + hashlib.sha256(name.encode('ascii')).hexdigest()[:8]
    name = name or 'part'
    if name > run.last:
        run.base, run.made_up = name, 0
    else:
        run.made_up += 1
        name = '%s.%04d-%s' % (run.base, run.made_up, name)
    run.last = name
    return name


def spool(ctype, filename, body):
    name = spool_name(filename)
    try:
        kind = os.path.join(apply.TYPES, name)
        if ctype in apply.TYPE_KINDS:
            apply.write_file(kind, ctype.encode('ascii'))
        elif os.path.exists(kind):
            os.unlink(kind)
        apply.write_file(os.path.join(apply.PENDING, name), body)
    except (IOError, OSError) as error:
        complain(name, body, 'the manifest cannot be written: %s' % say(error))


def end():
    try:
        apply.sync_folder(apply.PENDING)
        apply.sync_folder(apply.TYPES)
    except (IOError, OSError) as error:
        complain('kube-part-handler', b'', 'the manifests may not be on the disk: %s' % say(error))
    chosen = apply.settings(run.config)[0]
    try:
        install()
    except (IOError, OSError) as error:
        complain('kube-part-handler', b'', 'the applier cannot be installed: %s' % say(error))
    else:
        run.deadline = time.time() + SYSTEMCTL_PATIENCE
        for unit in chosen['enable']:
            systemctl('enable', unit)
            systemctl('start', '--no-block', unit)
        if chosen['mode'] == 'direct':
            apply_now(chosen['directWait'])
        start()
    send()


def install():
    """Puts the applier where every host lets it run."""
    apply.write_file(PROGRAM, APPLIER.encode('ascii'), 0o700)
    apply.sync_folder(apply.HOME)


def has_systemd():
    return os.path.isdir(os.path.join(apply.ROOT, 'run/systemd/system')) and bool(apply.find_program('systemctl'))


def start():
    """Has the applier run now and at every boot: by systemd, else in the background by cloud-init's own scripts."""
    if has_systemd():
        try:
            return start_units()
        except (IOError, OSError) as error:
            complain('kube-part-handler', b'', 'its systemd units cannot be installed: %s' % say(error))
    command = [PYTHON, PROGRAM, '--poll', '--detach']
    try:
        write_into(PER_BOOT, '#!/bin/sh\nexec %s\n' % ' '.join("'%s'" % word for word in command), 0o755)
    except (IOError, OSError) as error:
        complain('kube-part-handler', b'', 'after a reboot nobody will apply what is pending: %s' % say(error))
    code, out, err = apply.call(command, 10)
    if code != 0:
        complain('kube-part-handler', b'', 'the applier cannot be started: %s' % (out + err))


def start_units():
    write_into(os.path.join(UNITS, 'bootbundle-apply.path'), PATH_UNIT)
    write_into(
        os.path.join(UNITS, 'bootbundle-apply.service'),
        SERVICE_UNIT.replace('/usr/bin/python3', PYTHON).replace('/var/lib/bootbundle/bootbundle-apply', PROGRAM),
    )
    if not systemctl('enable', 'bootbundle-apply.path'):
        # What `enable` makes.
        wanted = os.path.join(UNITS, 'multi-user.target.wants', 'bootbundle-apply.path')
        if not os.path.isdir(os.path.dirname(wanted)):
            os.makedirs(os.path.dirname(wanted))
        if not os.path.lexists(wanted):
            os.symlink('../bootbundle-apply.path', wanted)
        apply.sync_folder(os.path.dirname(wanted))
        systemctl('daemon-reload')
    systemctl('start', '--no-block', 'bootbundle-apply.path')


def write_into(path, text, mode=0o644):
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder)
    apply.write_file(path, text.encode('utf-8'), mode)
    apply.sync_folder(folder)


def systemctl(*words):
    """Whether systemctl did it. One that does not answer in time is left running: it is not to hold back the boot."""
    command = [apply.find_program('systemctl') or 'systemctl'] + list(words)
    spoken = 'systemctl ' + ' '.join(words)
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as error:
        complain('kube-part-handler', b'', '%s: %s' % (spoken, say(error)))
        return False
    try:
        code = process.wait(timeout=max(0.1, run.deadline - time.time()))
    except subprocess.TimeoutExpired:
        run.left_running.append(process)
        complain('kube-part-handler', b'', '%s has not answered yet: left running' % spoken)
        return False
    if code != 0:
        complain('kube-part-handler', b'', '%s ended with %d' % (spoken, code))
    return code == 0


def apply_now(seconds):
    """The mode `direct`: what can be applied in that time is; what cannot stays pending for the service."""
    code, _, err = apply.call([PYTHON, PROGRAM, '--for', str(seconds)], seconds + 5)
    if code != 0:
        log.warning('not everything is applied yet: the applier goes on in the background (%s)', err[-500:])


def complain(name, body, message):
    """Logs a failure and has it reported at the end."""
    name = apply.presentable(apply.printable(str(name)))
    log.warning('%s: %s', name, message)
    run.reports.append({
        'file': name,
        'part': name,
        'sha256': hashlib.sha256(body).hexdigest(),
        'status': 'failed',
        'attempts': 1,
        'output': apply.presentable('kube-part-handler: ' + message),
        'at': int(time.time() * 1000),
        'id': uuid.uuid4().hex,
    })


def send():
    """Reports what failed here: through the applier's queue where there is one, and for two seconds at the most."""
    url = apply.url_in(run.config)
    if not run.reports or url is None:
        return
    unqueued = []
    for report in run.reports:
        try:
            apply.queue_report(report, url)
        except (IOError, OSError):
            unqueued.append(report)

    def post():
        try:
            for report in unqueued:
                apply.post_report(url, apply.report_body(report), REPORT_PATIENCE)
            apply.send_reports(url, REPORT_PATIENCE)
        except Exception as error:
            log.warning('the service cannot be reached: %s', say(error))

    sender = threading.Thread(target=post)
    sender.daemon = True
    sender.start()
    sender.join(REPORT_PATIENCE)
