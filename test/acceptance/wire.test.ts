import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startServer } from './server.ts';

const server = await startServer();

const SH = '#!/bin/sh\necho hello\n';

/** One connection, spoken to byte by byte. */
async function dial(port: number) {
  const socket = connect(port, '127.0.0.1');
  let received = '';
  let closed = false;
  socket.setEncoding('utf8').on('data', (text) => {
    received += text;
  });
  socket.on('close', () => {
    closed = true;
  });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  const until = async (what: () => boolean) => {
    for (let waited = 0; !what(); waited += 5) {
      if (waited > 5000) throw new Error(`waited for ${what}; received: ${received}`);
      await sleep(5);
    }
  };
  return {
    socket,
    send: (text: string) => socket.write(text),
    received: () => received,
    until: (pattern: RegExp) => until(() => pattern.test(received)),
    untilClosed: () => until(() => closed),
  };
}

const put = (path: string, length: number, ...headers: string[]) =>
  [`PUT /api/v1${path} HTTP/1.1`, 'Host: x', `Content-Length: ${length}`, ...headers, '', ''].join('\r\n');
const expecting = 'Expect: 100-continue';
const authorized = () => `Authorization: Bearer ${server.token}`;

test('a good upload gets its 100 Continue, and then its answer', async () => {
  for (const path of ['/bundles/web/parts/a.sh', '/bundles/web']) {
    const body = path.endsWith('web') ? JSON.stringify({ parts: [{ filename: 'a.sh', content: SH }] }) : SH;
    const { send, until, received, socket } = await dial(server.port);
    send(put(path, body.length, authorized(), expecting));
    await until(/^HTTP\/1\.1 100 Continue\r\n\r\n$/);
    send(body);
    await until(/HTTP\/1\.1 20[01] /);
    assert.equal(received().match(/100 Continue/g)?.length, 1);
    socket.destroy();
  }
});

test('401, 412, 413 and a resumed upload are decided before the body is asked for, and the connection ends', async () => {
  for (const [what, request, status] of [
    ['no token', put('/bundles/web/parts/a.sh', 10, expecting), 401],
    ['a wrong token', put('/bundles/web/parts/a.sh', 10, expecting, 'Authorization: Bearer x'), 401],
    ['a condition', put('/bundles/web/parts/a.sh', 10, expecting, authorized(), 'If-None-Match: *'), 412],
    ['a condition on a bundle', put('/bundles/web', 10, expecting, authorized(), 'If-Match: "x"'), 412],
    ['a condition on an instance', put('/instances/none', 10, expecting, authorized(), 'If-Match: *'), 412],
    ['a part too large', put('/bundles/web/parts/a.sh', 4 * 1024 * 1024 + 1, expecting, authorized()), 413],
    ['a bundle too large', put('/bundles/web', 24 * 1024 * 1024 + 1, expecting, authorized()), 413],
    ['an instance too large', put('/instances/x', 1024 * 1024 + 1, expecting, authorized()), 413],
    ['a list too large', put('/instances', 16 * 1024 * 1024 + 1, expecting, authorized()), 413],
    ['a resumed upload', put('/bundles/web/parts/a.sh', 10, expecting, authorized(), 'Content-Range: bytes 1-10/11'), 400],
    ['a condition on a NUL', put('/bundles/%00/parts/a.sh', 10, expecting, authorized(), 'If-Match: *'), 400],
    ['a condition on a list', put('/instances', 10, expecting, authorized(), 'If-Match: *'), 400],
  ] as const) {
    const { send, untilClosed, received } = await dial(server.port);
    send(request);
    await untilClosed();
    assert.match(received(), new RegExp(`^HTTP/1\\.1 ${status} `), what);
    assert.match(received(), /\r\nconnection: close\r\n/i, what);
    assert.match(received(), /application\/problem\+json/, what);
  }
});

test('whoever waits for a 100 Continue at a URL that wants no body is not kept waiting', async () => {
  for (const request of [
    `PUT /api/v1/nope HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n${authorized()}\r\n${expecting}\r\n\r\n`,
    `PUT /i/x/user-data HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n${expecting}\r\n\r\n`,
    `DELETE /api/v1/bundles/none HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n${authorized()}\r\n${expecting}\r\n\r\n`,
    `PUT /api/v1/bundles/web/parts HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n${authorized()}\r\n${expecting}\r\n\r\n`,
  ]) {
    const { send, until, socket, received } = await dial(server.port);
    send(request);
    await until(/^HTTP\/1\.1 (100|4\d\d) /);
    if (received().includes(' 100 ')) send('0123456789');
    await until(/HTTP\/1\.1 4\d\d /);
    socket.destroy();
  }
});

test('dot segments, NUL and %zz as they are sent reach no handler that is not theirs', async () => {
  for (const [target, status, type] of [
    ['/i/../api/v1/bundles', 404, 'text/plain'],
    ['/i/%2e%2e/user-data', 404, 'text/plain'],
    ['/i/%00/user-data', 404, 'text/plain'],
    ['/i/%zz/user-data', 404, 'text/plain'],
    ['/api/v1/../../i/x', 401, 'problem'],
    ['/api/v1/bundles/%2e%2e', 400, 'problem'],
    ['/api/v1/bundles/%00', 400, 'problem'],
    ['//api/v1/bundles', 404, 'problem'],
    ['/API/v1/bundles', 404, 'problem'],
    [`/i/${'A'.repeat(10_000)}`, 404, 'text/plain'],
  ] as const) {
    const { send, until, received, socket } = await dial(server.port);
    const token = target.startsWith('/api/v1/..') ? 'X: y' : authorized();
    send(`GET ${target} HTTP/1.1\r\nHost: x\r\n${token}\r\nConnection: close\r\n\r\n`);
    await until(/\r\n\r\n.*\n$/s);
    const wanted = status === 401 ? /^HTTP\/1\.1 40[14] / : new RegExp(`^HTTP/1\\.1 ${status} `);
    assert.match(received(), wanted, target);
    assert.match(received(), new RegExp(type), target);
    socket.destroy();
  }
});

test('SIGTERM: a slow upload and a slow fetch end well, then the process does, with 0', async () => {
  const own = await startServer();
  const headers = { authorization: `Bearer ${own.token}` };
  const large = `#!/bin/sh\n${'#'.repeat(4_000_000)}\n`;
  for (const name of ['a.sh', 'b.sh'])
    await fetch(`${own.url}/api/v1/bundles/large/parts/${name}`, { method: 'PUT', headers, body: large });
  await fetch(`${own.url}/api/v1/instances/vm`, { method: 'PUT', headers, body: '{"bundles":["large"]}' });
  const [, url = ''] = (await (await fetch(`${own.url}/api/v1/instances/vm/stub`, { headers })).text()).split('\n');
  const idle = await dial(own.port);
  const late = await dial(own.port);
  const slow = await dial(own.port);
  slow.send(`GET ${new URL(url).pathname} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await slow.until(/^HTTP\/1\.1 200 /);
  slow.socket.pause();
  const upload = await dial(own.port);
  upload.send(put('/bundles/slow/parts/a.sh', SH.length, `Authorization: Bearer ${own.token}`));
  upload.send(SH.slice(0, 5));
  await sleep(100);
  const begun = Date.now();
  const stopped = own.stop('SIGTERM');
  await sleep(200);
  await assert.rejects(dial(own.port), 'nobody new is let in');
  late.send('GET /i/x/user-data HTTP/1.1\r\nHost: x\r\n\r\n');
  await late.until(/^HTTP\/1\.1 404 [\s\S]*\nnot found\n$/);
  await sleep(100);
  slow.socket.resume();
  await slow.until(/\n--bootbundle-[0-9a-f]{32}--\n$/);
  upload.send(SH.slice(5));
  await upload.until(/^HTTP\/1\.1 201 /);
  assert.equal(await stopped, 0);
  await idle.untilClosed();
  assert.ok(Date.now() - begun < 5000, 'it does not wait for a connection that is kept open');

  const again = await startServer({ BOOTBUNDLE_DATA_DIR: own.data });
  const answer = await fetch(`${again.url}/api/v1/bundles/slow/parts/a.sh`, { headers });
  assert.equal(await answer.text(), SH, 'what was acknowledged is there');
  assert.doesNotMatch(again.stderr(), /made an admin token/);
  assert.equal(await again.stop('SIGINT'), 0);
});

test('what was acknowledged survives SIGKILL, and nothing stale keeps the next start', async () => {
  const own = await startServer();
  const headers = { authorization: `Bearer ${own.token}` };
  const answer = await fetch(`${own.url}/api/v1/bundles/web/parts/a.sh`, { method: 'PUT', headers, body: SH });
  assert.equal(answer.status, 201);
  await own.stop('SIGKILL');
  const again = await startServer({ BOOTBUNDLE_DATA_DIR: own.data });
  assert.equal(await (await fetch(`${again.url}/api/v1/bundles/web/parts/a.sh`, { headers })).text(), SH);
  await again.stop();
});

test('what is not HTTP is 400 in plain text, and no line of the log holds what was in it', async () => {
  const own = await startServer({ BOOTBUNDLE_LOG_LEVEL: 'trace' });
  const secrets = ['A'.repeat(40), 'SECRET-TOKEN'];
  const [capability, token] = secrets;
  const head = (line: string) =>
    `GET /i/${capability}/user-data HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n${line}`;
  const broken = {
    'a header line without a colon': head('no colon\r\n\r\n'),
    'a header with NUL': head('X: a\0b\r\n\r\n'),
    'a header name with a space': head('X Y: z\r\n\r\n'),
    'two lengths': head('Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx'),
    'a length that is none': head('Content-Length: x\r\n\r\n'),
    'a length and chunks': head('Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
    'an over-long header': head(`X: ${'x'.repeat(20_000)}\r\n\r\n`),
    'an over-long URL': `GET /i/${capability}/${'x'.repeat(20_000)} HTTP/1.1\r\nAuthorization: ${token}\r\n\r\n`,
    'a URL with a space': `GET /i/${capability} ${token} HTTP/1.1\r\nHost: x\r\n\r\n`,
    'another version': `GET /i/${capability}/user-data HTTP/9.9\r\nAuthorization: ${token}\r\n\r\n`,
    'no method': `${token} /i/${capability}/user-data HTTP/1.1\r\nHost: x\r\n\r\n`,
  };
  for (const [what, text] of Object.entries(broken)) {
    const { send, untilClosed, received } = await dial(own.port);
    send(text);
    await untilClosed();
    assert.equal(
      received(),
      'HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 12\r\nConnection: close\r\n\r\nbad request\n',
      what,
    );
  }
  assert.equal((await fetch(`${own.url}/healthz`)).status, 200, 'and it goes on');
  assert.equal(await own.stop(), 0);
  const output = own.stdout() + own.stderr();
  assert.equal(output.match(/not an HTTP request/g)?.length, Object.keys(broken).length);
  for (const secret of secrets) {
    assert.ok(!output.includes(secret), secret);
    assert.ok(!output.includes(Buffer.from(secret).toString('hex')), secret);
    assert.ok(!output.includes([...Buffer.from(secret)].join(',')), `${secret} as bytes`);
  }
});

test('no line of a process’s output holds a token, a key or a capability', async () => {
  const own = await startServer();
  const headers = { authorization: `Bearer ${own.token}` };
  await fetch(`${own.url}/api/v1/bundles/web/parts/a.sh`, { method: 'PUT', headers, body: SH });
  const registered = await fetch(`${own.url}/api/v1/instances/vm`, { method: 'PUT', headers, body: '{"bundles":["web"]}' });
  const { status } = (await registered.json()) as { status: { stub: { url: string } } };
  await (await fetch(status.stub.url)).text();
  await (await fetch(`${status.stub.url}x`)).text();
  assert.equal(await own.stop(), 0);
  const output = own.stdout() + own.stderr();
  assert.match(output, /"route":"\/i\/:capability\/user-data","status":200/);
  for (const secret of [own.token, new URL(status.stub.url).pathname.split('/')[2] ?? '']) assert.ok(!output.includes(secret));
});
