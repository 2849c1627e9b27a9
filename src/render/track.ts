/**
 * How the cloud-config that turns reports on is merged: what is there already stands, whatever rule it came with. It goes last of all
 * cloud-configs, and has no list, so it takes nothing from an operator's own.
 */
export const TRACK_RULE = 'dict(no_replace)';

/** Sorts before every numbered script of the document. */
export const LOG_SENDER = '00-bootbundle-logs.sh';

/** What of a log is sent: its end, bytes. The service takes no more (LIMITS.logBytes). */
const TAIL_BYTES = 65_536;

/**
 * The cloud-config that makes a machine report. What our absence may cost a boot is kept to seconds: an event is tried once, for two
 * seconds (after three failures in a row a stage throws its queue away: reporting/handlers.py); the phone-home twice, three seconds apart. A key
 * of the webhook's that cloud-init does not know would stop three stages with a TypeError.
 */
export function trackingConfig(reportUrl: string, { phoneHome }: { phoneHome: boolean }): string {
  const lines = [
    '#cloud-config',
    '# Makes this machine report to bootbundle; track: false leaves it out.',
    'reporting:',
    '  bootbundle:',
    '    type: webhook',
    `    endpoint: ${JSON.stringify(`${reportUrl}/events`)}`,
    '    retries: 0',
    '    timeout: 2',
  ];
  if (phoneHome)
    lines.push(
      'phone_home:',
      `  url: ${JSON.stringify(`${reportUrl}/phone-home`)}`,
      '  post: [pub_key_rsa, pub_key_ecdsa, pub_key_ed25519, instance_id, hostname, fqdn]',
      '  tries: 2',
    );
  return `${lines.join('\n')}\n`;
}

/**
 * The script that sends the ends of the logs; it leaves a child behind and ends at once. Why it is a part of its own: README.md.
 */
export function logSender(reportUrl: string): string {
  return SCRIPT.replace('{url}', () => shellWord(`${reportUrl}/logs`));
}

function shellWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/**
 * result.json is written when all modules are done; where it never is, the process that runs this script (`$PPID`) goes away. That process'
 * own interpreter is a Python that is surely there. The URL goes to it in the environment, so that no list of processes shows it.
 * BOOTBUNDLE_ROOT stands for / in tests.
 */
const SCRIPT = `#!/bin/sh
# Sends the ends of cloud-init's logs to bootbundle once cloud-init is done; track: false leaves it out.
export BOOTBUNDLE_LOGS={url}
root=$BOOTBUNDLE_ROOT
result=$root/run/cloud-init/result.json
cloud_init=$PPID
python=$(command -v python3 || readlink "/proc/$PPID/exe" || echo python3)

wait_for_cloud_init() {
  tries=0
  while [ ! -e "$result" ] && [ $tries -lt 45000 ] && kill -0 "$cloud_init"; do
    tries=$((tries + 1))
    # Quick at first: the machine may be about to shut down. After ten minutes every other second, for a day.
    if [ $tries -lt 2400 ]; then sleep 0.25 || sleep 1; else sleep 2; fi
  done
}

# NAME FILE
send() {
  [ -s "$2" ] || return 0
  query=
  [ "$(wc -c < "$2")" -gt ${TAIL_BYTES} ] && query='?truncated=true'
  for pause in 2 10 60 300 0; do
    tail -c ${TAIL_BYTES} "$2" > "$tail"
    post "$1$query" && return 0
    sleep $pause
  done
}

# NAME. Fails if it is worth another try.
post() {
  if "$python" -c 'import urllib.request'; then
    "$python" -c '
import os, sys, urllib.error, urllib.request
url = os.environ["BOOTBUNDLE_LOGS"] + "/" + sys.argv[1]
headers = {"Content-Type": "text/plain"}
try:
    urllib.request.urlopen(urllib.request.Request(url, open(sys.argv[2], "rb").read(), headers), timeout=20).close()
except urllib.error.HTTPError as error:
    sys.exit(error.code >= 500 or error.code == 429)
' "$1" "$tail"
  elif command -v curl; then
    curl -q -f -s -m 20 -H 'Content-Type: text/plain' --data-binary "@$tail" "$BOOTBUNDLE_LOGS/$1"
  else
    wget -q -T 20 -O - --header 'Content-Type: text/plain' --post-file "$tail" "$BOOTBUNDLE_LOGS/$1"
  fi
}

(
  trap '' HUP
  wait_for_cloud_init
  tail=$(mktemp) || exit 0
  send cloud-init-output.log "$root/var/log/cloud-init-output.log"
  send result.json "$result"
  rm -f "$tail"
) </dev/null >/dev/null 2>&1 &
exit 0
`;
