import { type CompiledPart, compilePart } from './document.ts';

/** Where machines find these (cloudinit/cmd/main.py, status_wrapper; config/cc_*.py's output). */
const LOGS = ['/var/log/cloud-init-output.log', '/run/cloud-init/result.json'];
/** The end of a log, bytes: what http/boot takes. */
const TAIL_BYTES = 65_536;

/**
 * The cloud-config that makes a machine report to `reportUrl`: cloud-init's events by its webhook, its phone-home unless somebody else's is in
 * the document, and the ends of its logs. Only what 22.4 knows is in it: an unknown key of a webhook's stops three stages with a TypeError
 * (reporting/handlers.py). Few tries: that we are away must cost a boot seconds.
 */
export function trackingPart(reportUrl: string, { phoneHome }: { phoneHome: boolean }): CompiledPart {
  const config = {
    reporting: { bootbundle: { type: 'webhook', endpoint: `${reportUrl}/events`, timeout: 3, retries: 1 } },
    ...(phoneHome && { phone_home: { url: `${reportUrl}/phone-home`, post: 'all', tries: 2 } }),
    runcmd: [sendLogs(reportUrl)],
  };
  const lines = Object.entries(config).map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`);
  return compilePart(
    {
      filename: 'bootbundle-tracking.yaml',
      type: 'text/cloud-config',
      merge: null,
      role: { kind: 'config', statesRule: false, phonesHome: phoneHome },
      origin: 'bootbundle',
    },
    Buffer.from(`#cloud-config\n${lines.join('')}`),
  );
}

/**
 * Waits, beside the boot, for the final stage to write its result, then posts the ends of the logs. The URL goes to the client by a pipe: a
 * command line is there for everybody on the machine to read, so this is a line of cloud-init's own script file, not an argument of a shell.
 */
function sendLogs(reportUrl: string): string {
  return `(
n=0
while [ ! -e /run/cloud-init/result.json ] && [ $n -lt 3600 ]; do n=$((n+1)); sleep 1; done
for log in ${LOGS.join(' ')}; do
  [ -s "$log" ] || continue
  url="${reportUrl}/logs/\${log##*/}"
  tail=$(mktemp) || exit
  tail -c ${TAIL_BYTES} "$log" >"$tail"
  if command -v curl; then echo "url = $url" | curl -K - -sS -m 10 --retry 2 -H 'Content-Type: text/plain' --data-binary "@$tail"
  elif command -v wget; then echo "$url" | wget -q -T 10 -t 2 -O - --post-file="$tail" -i -
  else echo "$url" | python3 -c 'import sys, urllib.request as r; r.urlopen(sys.stdin.readline().strip(), open(sys.argv[1], "rb").read(), 10)' "$tail"
  fi
  rm -f "$tail"
done
) </dev/null >/dev/null 2>&1 &`;
}

/** Whether a cloud-config may name `phone_home`, in whatever way it is written: rather once too often than two machines' worth of keys sent nowhere. */
export function statesPhoneHome(text: string): boolean {
  return /phone_home["']?\s*:|"\/phone_home/.test(text);
}
