import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Driver, startCloudInit } from './driver.ts';
import { findCloudInit, skipWithout } from './fetch.ts';

/** The harness can fail: documents made by hand, some of them wrong, and what cloud-init makes of them. */
const cloudInit = await findCloudInit();

describe('the driver of the real cloud-init', { skip: skipWithout(cloudInit) }, () => {
  let driver: Driver;
  before(async () => {
    driver = await startCloudInit(cloudInit);
  });
  after(() => driver.close());

  const document = (...parts: string[]) =>
    `Content-Type: multipart/mixed; boundary="BB"\nMIME-Version: 1.0\n\n${parts.map((part) => `--BB\n${part}\n`).join('')}--BB--\n`;
  const handler = (body: string) =>
    `Content-Type: text/part-handler\n\ndef list_types():\n    return ["text/x-a", "text/x-b"]\ndef handle_part(data, ctype, filename, payload):\n    ${body}\n`;

  it('tells parts, headers, handlers and their calls', async () => {
    const part = 'Content-Type: text/x-a\nMerge-Type: m\nContent-Disposition: attachment; filename="02-a"\n\nbody';
    const seen = await driver.consume(document(handler('print("got", ctype)'), part));
    assert.deepEqual(seen.warnings, []);
    assert.equal(seen.failure, null);
    assert.deepEqual(
      seen.parts.map(({ type, filename, text }) => ({ type, filename, text })),
      [
        { type: 'text/part-handler', filename: 'part-001', text: true },
        { type: 'text/x-a', filename: '02-a', text: true },
      ],
    );
    assert.equal(seen.parts[1]?.headers['Merge-Type'], 'm');
    assert.deepEqual(seen.handlers, [{ handler: 'part-handler-000', types: ['text/x-a', 'text/x-b'] }]);
    assert.deepEqual(
      seen.calls.map((call) => [call.type, call.filename, call.arguments, call.payload.toString()]),
      [
        ['__begin__', null, 4, ''],
        ['text/x-a', '02-a', 4, 'body'],
        ['__end__', null, 4, ''],
      ],
    );
    assert.equal(seen.output, 'got __begin__\ngot text/x-a\ngot __end__\n');
  });

  it('shows how 8bit text is corrupted', async () => {
    const seen = await driver.consume(
      document('Content-Type: text/x-shellscript\nContent-Transfer-Encoding: 8bit\n\n#!/bin/sh\n# é ✓'),
    );
    assert.notEqual(seen.parts[0]?.payload.toString(), '#!/bin/sh\n# é ✓');
  });

  it('hands on warnings: a part without a handler, one before its handler, bad YAML', async () => {
    const unhandled = await driver.consume(document('Content-Type: text/x-a\n\nx', handler('pass')));
    assert.match(unhandled.warnings.join(), /Unhandled unknown content-type \(text\/x-a\)/);
    const broken = await driver.consume(document('Content-Type: text/cloud-config\n\n#cloud-config\na: [\n'));
    assert.match(broken.warnings.join(), /Failed (at merging|loading)/);
  });

  it('writes scripts and boothooks and runs none of them', async () => {
    const trace = join(tmpdir(), `bootbundle-ran-${process.pid}`);
    const types = ['x-shellscript', 'x-shellscript-per-boot', 'x-shellscript-per-instance', 'x-shellscript-per-once'];
    const parts = types.map((type) => `Content-Type: text/${type}\n\n#!/bin/sh\ntouch ${trace}\n`);
    const seen = await driver.consume(
      document(...parts, `Content-Type: text/cloud-boothook\n\n#cloud-boothook\n#!/bin/sh\ntouch ${trace}\n`),
    );
    assert.deepEqual(seen.warnings, []);
    const written = [seen.scripts, seen.perBoot, seen.perInstance, seen.perOnce, seen.boothooks];
    assert.deepEqual(
      written.map((files) => files.map(({ filename, executable }) => `${filename} ${executable}`)),
      [['part-001 true'], ['part-002 true'], ['part-003 true'], ['part-004 true'], ['part-005 true']],
    );
    assert.equal(existsSync(trace), false);
  });

  it('goes on after a handler that ends its process, and carries nothing over to the next document', async () => {
    await assert.rejects(driver.consume(document(handler('import os; os._exit(3)'))), /driver failed/);
    const first = await driver.consume(
      document(handler('print("one")'), 'Content-Type: text/cloud-config\n\n#cloud-config\na: 1\n'),
    );
    const second = await driver.consume(document(handler('print("two")')));
    assert.equal(first.output, 'one\none\n');
    assert.equal(second.output, 'two\ntwo\n');
    assert.deepEqual(second.config, {});
  });

  it('follows an include over HTTP and a NoCloud seed URL, and tells the requests', async () => {
    const bodies: Record<string, string> = {
      '/user-data': '#cloud-config\nhostname: included\n',
      '/meta-data': 'instance-id: i-1\nlocal-hostname: seeded\n',
      '/vendor-data': '#cloud-config\nruncmd: [vendor]\n',
    };
    const server = createServer((request, response) => response.end(bodies[request.url ?? ''] ?? '')).listen(0, '127.0.0.1');
    try {
      await new Promise((resolve) => server.once('listening', resolve));
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      const included = await driver.consume(`#include-once\n${url}/user-data\n`);
      assert.deepEqual(included.config, { hostname: 'included' });
      assert.deepEqual(
        included.requests.map((request) => `${request.method} ${request.url} ${request.status}`),
        [`GET ${url}/user-data 200`],
      );
      assert.match(included.requests[0]?.headers['User-Agent'] ?? '', /^Cloud-Init\//);

      const seeded = await driver.consumeSeed(`${url}/`);
      assert.equal(seeded.metaData?.['instance-id'], 'i-1');
      assert.deepEqual(seeded.config, { hostname: 'included' });
      assert.deepEqual(
        seeded.parts.map(({ source, type }) => `${source} ${type}`),
        ['userdata text/cloud-config', 'vendordata text/cloud-config'],
      );
      assert.deepEqual([...included.warnings, ...seeded.warnings], []);
    } finally {
      server.close();
    }
  });
});
