/**
 * How the cloud-config that turns reports on is merged: what is there already stands, whatever rule it came with. It goes last of all
 * cloud-configs, and has no list, so it takes nothing from an operator's own.
 */
export const TRACK_RULE = 'dict(no_replace)';

/** Sorts before every numbered script of the document. */
export const REPORTER = '00-bootbundle-report.sh';

/**
 * The cloud-config that makes a machine post its events. What our absence may cost a boot is kept to seconds: each event is tried once, for
 * one second, and after three failures in a row a stage throws its queue away (reporting/handlers.py). What is lost so is in result.json, too. A
 * key of the webhook's that cloud-init does not know would stop three stages with a TypeError.
 */
export function trackingConfig(reportUrl: string): string {
  return `#cloud-config
# Makes this machine report to bootbundle; track: false leaves it out.
reporting:
  bootbundle:
    type: webhook
    endpoint: ${JSON.stringify(`${reportUrl}/events`)}
    retries: 0
    timeout: 1
`;
}

/** The script that phones home and sends the ends of the logs; it leaves a child behind and ends at once. Why a script: README.md. */
export function reporter(reportUrl: string): string {
  return SCRIPT.replace('{report}', () => `'${reportUrl.replaceAll("'", "'\\''")}'`);
}

/**
 * Runs on any Python from 3.6 on: the one on the PATH, else the one that cloud-init itself runs on. The form is that of cloud-init's own
 * phone_home (config/cc_phone_home.py). result.json is written when all modules are done; where it never is, cloud-init is gone. Looking for it
 * often finds it before a machine that is to power off has done so. BOOTBUNDLE_ROOT stands for / in tests.
 */
const SCRIPT = `#!/bin/sh
# Tells bootbundle of this machine, and sends the ends of cloud-init's logs once it is done; track: false leaves it out.
python=$(command -v python3 || command -v /usr/libexec/platform-python || readlink "/proc/$PPID/exe")
export BOOTBUNDLE_REPORT={report}
"$python" -I - "$PPID" <<'PYTHON' >/dev/null 2>&1
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = os.environ.get('BOOTBUNDLE_ROOT', '/')
REPORT = os.environ['BOOTBUNDLE_REPORT']
CLOUD_INIT = int(sys.argv[1])
TAIL = 65536


def path(name):
    return os.path.join(ROOT, name)


def text(name):
    try:
        with open(path(name), encoding='utf-8', errors='replace') as file:
            return file.read()
    except OSError:
        return ''


def post(name, body, kind):
    for pause in (2, 10, 60, 300, 0):
        try:
            urllib.request.urlopen(urllib.request.Request(REPORT + name, body, {'Content-Type': kind}), timeout=20).close()
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                return
        except Exception:
            pass
        time.sleep(pause)


def phone_home():
    try:
        names = dict(json.loads(text('var/lib/cloud/data/set-hostname')))
    except (TypeError, ValueError):
        names = {}
    host = os.uname()[1]
    form = [
        ('instance_id', text('var/lib/cloud/data/instance-id').strip()),
        ('hostname', names.get('hostname') or host.split('.')[0]),
        ('fqdn', names.get('fqdn') or host),
    ]
    for kind in ('rsa', 'ecdsa', 'ed25519'):
        key = text('etc/ssh/ssh_host_%s_key.pub' % kind)
        if key:
            form.append(('pub_key_' + kind, key))
    post('/phone-home', urllib.parse.urlencode(form).encode(), 'application/x-www-form-urlencoded')


def is_over(result):
    try:
        os.kill(CLOUD_INIT, 0)
    except OSError:
        return True
    return os.path.exists(result)


def wait_for(result):
    began = time.monotonic()
    passed = 0
    while passed < 86400 and not is_over(result):
        time.sleep(0.02 if passed < 600 else 1)
        passed = time.monotonic() - began


def send_tail(name, file):
    try:
        with open(path(file), 'rb') as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - TAIL))
            body = log.read(TAIL)
    except OSError:
        return
    if body:
        post('/logs/%s%s' % (name, '?truncated=true' if size > TAIL else ''), body, 'text/plain')


if os.fork():
    os._exit(0)
os.setsid()
os.chdir('/')
null = os.open(os.devnull, os.O_RDWR)
for standard in (0, 1, 2):
    os.dup2(null, standard)
phone_home()
wait_for(path('run/cloud-init/result.json'))
send_tail('result.json', 'run/cloud-init/result.json')
send_tail('cloud-init-output.log', 'var/log/cloud-init-output.log')
PYTHON
exit 0
`;
