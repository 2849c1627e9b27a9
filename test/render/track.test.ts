import assert from 'node:assert/strict';
import { once } from 'node:events';
import { symlinkSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { readYaml } from '../../src/inspect/yaml.ts';
import { reporter, trackingConfig } from '../../src/render/track.ts';
import { Machine, pythons, until } from '../guest/machine.ts';

interface Posted {
  path: string;
  type: string;
  body: string;
}

/** What takes a machine's reports. `answer` says with which status, from how many there were before. */
async function service(t: TestContext, answer: (before: number) => number = () => 204) {
  const posted: Posted[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const path = request.url ?? '';
    const status = answer(posted.length);
    posted.push({ path, type: request.headers['content-type'] ?? '', body: Buffer.concat(chunks).toString() });
    response.writeHead(status).end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/it's/r`, posted };
}

/** A machine in the middle of its final stage: a shell stands for cloud-init, runs the script and goes on until it is `gone`. */
function machine(t: TestContext, url: string) {
  const it = new Machine(t);
  it.write('var/lib/cloud/data/set-hostname', '{"hostname": "node-1", "fqdn": "node-1.example.org"}');
  it.write('var/lib/cloud/data/instance-id', 'i-0123\n');
  it.write('etc/ssh/ssh_host_ed25519_key.pub', 'ssh-ed25519 AAAA+/= root@node-1\n');
  it.write('var/log/cloud-init-output.log', 'hello\n');
  it.write('script', reporter(url));
  const cloudInit = `sh '${it.path('script')}'; echo "ended $?"; while [ ! -e '${it.path('gone')}' ]; do sleep 0.05; done`;
  return { it, boot: () => it.start('/bin/sh', ['-c', cloudInit]) };
}

const RESULT = '{"v1": {"errors": []}}';
const END = 'run/cloud-init/result.json';

test('the cloud-config has the keys of the webhook that every cloud-init knows, and nothing else', () => {
  const endpoint = 'http://192.0.2.10/r/x"/events';
  assert.deepEqual(readYaml(trackingConfig('http://192.0.2.10/r/x"'))[0], {
    reporting: { bootbundle: { type: 'webhook', endpoint, retries: 0, timeout: 1 } },
  });
});

test('the script phones home at once, ends without a word, and sends the logs when cloud-init is done', async (t) => {
  const { url, posted } = await service(t);
  const { it, boot } = machine(t, url);
  const { ended } = boot();
  await until(() => posted.length === 1);
  const form = new URLSearchParams(posted[0]?.body);
  assert.deepEqual([posted[0]?.path, posted[0]?.type], ["/it's/r/phone-home", 'application/x-www-form-urlencoded']);
  assert.deepEqual(Object.fromEntries(form), {
    instance_id: 'i-0123',
    hostname: 'node-1',
    fqdn: 'node-1.example.org',
    pub_key_ed25519: 'ssh-ed25519 AAAA+/= root@node-1\n',
  });
  it.write('var/log/cloud-init-output.log', 'hello\nGrüße\n');
  it.write(END, RESULT);
  await until(() => posted.length === 3);
  it.write('gone', '');
  const { code, stdout, stderr } = await ended;
  assert.deepEqual([code, stdout, stderr], [0, 'ended 0\n', '']);
  assert.deepEqual(posted.slice(1), [
    { path: "/it's/r/logs/result.json", type: 'text/plain', body: RESULT },
    { path: "/it's/r/logs/cloud-init-output.log", type: 'text/plain', body: 'hello\nGrüße\n' },
  ]);
});

test('of a long log the end is sent, and it says so', async (t) => {
  const { url, posted } = await service(t);
  const { it, boot } = machine(t, url);
  it.write('var/log/cloud-init-output.log', `${'x'.repeat(100_000)}the end\n`);
  it.write(END, RESULT);
  boot();
  await until(() => posted.length === 3);
  assert.equal(posted[2]?.path, "/it's/r/logs/cloud-init-output.log?truncated=true");
  assert.deepEqual([posted[2]?.body.length, posted[2]?.body.endsWith('xthe end\n')], [65_536, true]);
  it.write('gone', '');
});

test('a cloud-init that is gone before it is done, and a machine of which nothing is known, are told of too', async (t) => {
  const { url, posted } = await service(t);
  const { it, boot } = machine(t, url);
  for (const name of ['var/lib/cloud/data/set-hostname', 'etc/ssh/ssh_host_ed25519_key.pub']) it.write(name, '');
  it.write('gone', '');
  boot();
  await until(() => posted.length === 2);
  assert.match(posted[0]?.body ?? '', /^instance_id=i-0123&hostname=[^&]+&fqdn=[^&]+$/);
  assert.equal(posted[1]?.path, "/it's/r/logs/cloud-init-output.log");
});

test('what our trouble refuses is sent again; what is refused for good is not', async (t) => {
  const troubled = await service(t, (before) => (before === 0 ? 503 : 204));
  const final = await service(t, () => 404);
  for (const { url } of [troubled, final]) {
    const { it, boot } = machine(t, url);
    it.write(END, RESULT);
    it.write('gone', '');
    boot();
  }
  await until(() => final.posted.length === 3 && troubled.posted.length === 4);
  assert.deepEqual(
    troubled.posted.slice(0, 2).map(({ path }) => path),
    ["/it's/r/phone-home", "/it's/r/phone-home"],
  );
});

for (const { version, python } of pythons().filter(({ version }) => !version.startsWith('2')))
  test(`the Python ${version} runs it`, async (t) => {
    const { url, posted } = await service(t);
    const { it, boot } = machine(t, url);
    symlinkSync(python, it.path('bin/python3'));
    it.write(END, RESULT);
    it.write('gone', '');
    boot();
    await until(() => posted.length === 3);
  });
