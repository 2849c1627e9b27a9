import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import { startServer, temporaryDirectory } from './server.ts';

/** The contract with curl, row by row (CURL.md). */
const missing = ['curl', 'git'].filter((tool) => spawnSync(tool, ['--version']).error);

const SH = '#!/bin/sh\necho hello\n';
const CONFIG = '#cloud-config\nhostname: a\n';
const MERGE = 'list(append)+dict(no_replace,recurse_list)+str()';

describe('curl', { skip: missing.length > 0 && `needs ${missing.join(', ')}`, concurrency: false }, async () => {
  if (missing.length > 0) return;
  const server = await startServer();
  const U = `${server.url}/api/v1`;
  const dir = temporaryDirectory();
  const rc = join(server.data, 'admin.curlrc');
  mkdirSync(join(dir, 'd'));
  mkdirSync(join(dir, 'empty'));
  for (const [name, content] of Object.entries({
    'a.sh': SH,
    'b.sh': `${SH}date\n`,
    'd/a.sh': `${SH}# d\n`,
    'c.cfg': CONFIG,
    'inst.yaml': 'bundles: [for-instances]\nlabels: {site: fra1}\n',
    'big.sh': `#!/bin/sh\n${'# filler\n'.repeat(400_000)}`,
    'huge.sh': `#!/bin/sh\n${'# filler\n'.repeat(500_000)}`,
  }))
    writeFileSync(join(dir, name), content);

  interface Answer {
    exit: number | null;
    /** Of each transfer. */
    statuses: number[];
    body: string;
    stderr: string;
    // biome-ignore lint/suspicious/noExplicitAny: answers of many shapes, asserted field by field
    json(): any;
  }
  async function run(args: string[], stdin = ''): Promise<Answer> {
    const child = spawn('curl', ['-sS', '--fail-with-body', '-m', '20', '-w', '\\n%{http_code}\\n', ...args], { cwd: dir });
    child.stdin.on('error', () => undefined).end(stdin);
    const [stdout, stderr, [exit]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
    const statuses = [...stdout.matchAll(/\n(\d{3})\n/g)].map((match) => Number(match[1]));
    const body = stdout.replace(/\n\d{3}\n$/, '');
    return { exit, statuses, body, stderr, json: () => JSON.parse(body) };
  }
  const curl = (...args: string[]) => run(['-K', rc, ...args]);
  const pipe = (stdin: string, ...args: string[]) => run(['-K', rc, ...args], stdin);
  const ok = (answer: Answer, ...statuses: number[]) =>
    assert.deepEqual([answer.exit, answer.statuses, answer.stderr], [0, statuses, ''], answer.body);
  /** --fail-with-body: a refusal is told by the exit code, and its body is there to be read. */
  const refused = (answer: Answer, status: number, code: string) => {
    assert.deepEqual([answer.exit, answer.statuses.at(-1)], [22, status], answer.body + answer.stderr);
    assert.equal(answer.json().code, code);
    return answer.json().detail as string;
  };
  const bundleNames = async () =>
    (await curl(`${U}/bundles?limit=1000`)).json().items.map(({ name }: { name: string }) => name);

  test('-T a.sh …/parts/: the name comes along', async () => {
    ok(await curl('-T', 'a.sh', `${U}/bundles/b/parts/`), 201);
    ok(await curl('-T', 'a.sh', `${U}/bundles/b/parts/`), 200);
    ok(await curl('-T', 'a.sh', `${U}/bundles/b/parts/?dryRun=true`), 200);
    assert.equal((await curl(`${U}/bundles/b/parts/a.sh`)).body, SH);
  });

  test('-T a.sh "…/parts/?template=true": a template', async () => {
    const said = await curl('-T', 'a.sh', `${U}/bundles/templates/parts/?template=true`);
    ok(said, 201);
    assert.equal(said.json().template, true);
  });

  test('-T a.sh …/parts, without the slash, and a pipe without a name', async () => {
    assert.match(refused(await curl('-T', 'a.sh', `${U}/bundles/b/parts`), 400, 'filename_missing'), /end the URL with \//);
    assert.match(refused(await pipe(SH, '-T', '-', `${U}/bundles/b/parts/`), 400, 'filename_missing'), /-T - …\/parts\/FILE/);
  });

  test('cat a.sh | curl -T - …/parts/a.sh: chunked', async () => {
    ok(await pipe(SH, '-T', '-', `${U}/bundles/piped/parts/a.sh`), 201);
    assert.equal((await curl(`${U}/bundles/piped/parts/a.sh`)).body, SH);
  });

  test('-T a.sh …/bundles/b and …/bundles/: no bundle is born of a file', async () => {
    assert.match(
      refused(await curl('-T', 'a.sh', `${U}/bundles/raw`), 415, 'bad_content_type'),
      /application\/x-tar.*\/parts\//,
    );
    refused(await curl('-T', 'a.sh', `${U}/bundles/`), 415, 'bad_content_type');
    for (const name of ['raw', 'a.sh']) assert.ok(!(await bundleNames()).includes(name), name);
  });

  test('-T a.sh b.sh U/p/, as a shell expands -T *.sh: the rest is a GET that hints', async () => {
    const answer = await curl('-T', 'a.sh', `${U}/bundles/glob/parts/`, `${U}/bundles/glob/parts/`);
    ok(answer, 201, 200);
    assert.match(answer.body, /curl -T '\{a\.sh,b\.yaml\}'/);
  });

  test("-T '{a.sh,d/a.sh}' …/parts/: the second is a new revision of the same name", async () => {
    ok(await curl('-T', '{a.sh,d/a.sh}', `${U}/bundles/twice/parts/`), 201, 200);
    const { revision, parts } = (await curl(`${U}/bundles/twice`)).json();
    assert.deepEqual([revision, parts.length], [2, 1]);
  });

  test('-T somedir …/parts/: an empty part asks whether it was a directory', async () => {
    assert.match(refused(await pipe('', '-T', '-', `${U}/bundles/b/parts/empty`), 422, 'empty_part'), /was this a directory\?/);
    const answer = await curl('-T', 'empty', `${U}/bundles/b/parts/`);
    assert.notEqual(answer.exit, 0, 'curl or the server refuses');
    assert.ok(
      !(await curl(`${U}/bundles/b/parts/`)).json().items.some(({ filename }: { filename: string }) => filename === 'empty'),
    );
  });

  test('-T a.sh …/parts/..: curl folds it; sent as it is, it is no name; // is never collapsed', async () => {
    const answer = await curl('-T', 'a.sh', `${U}/bundles/b/parts/..`);
    refused(answer, 404, 'unknown_url');
    const asIs = ['--path-as-is', '-X', 'PUT', '--data-binary', '@a.sh'];
    refused(await curl(...asIs, `${U}/bundles/b/parts/..`), 400, 'bad_name');
    refused(await curl(...asIs, `${U}/bundles/b/parts/../../x/parts/a.sh`), 404, 'unknown_url');
    refused(await curl('-T', 'a.sh', `${U}/bundles/b/parts//a.sh`), 404, 'unknown_url');
    refused(await curl('-T', 'a.sh', `${server.url}//api/v1/bundles/b/parts/a.sh`), 404, 'unknown_url');
  });

  test('-X PUT --data-binary @a.sh: the form type means "not said"', async () => {
    const answer = await curl('-X', 'PUT', '--data-binary', '@a.sh', `${U}/bundles/data/parts/a.sh`);
    ok(answer, 201);
    assert.deepEqual([answer.json().type, answer.json().size], ['text/x-shellscript', SH.length]);
  });

  test('-X PUT -d @a.sh: line breaks are lost, and it says to use -T', async () => {
    assert.match(
      refused(await curl('-X', 'PUT', '-d', '@a.sh', `${U}/bundles/data/parts/x.sh`), 422, 'newlines_lost'),
      /curl -T/,
    );
    refused(await curl('-X', 'PUT', '-d', '@c.cfg', `${U}/bundles/data/parts/x.cfg`), 422, 'newlines_lost');
  });

  test('-F part=@a -F part=@b: sniffed, one revision', async () => {
    const answer = await curl('-X', 'PUT', '-F', 'part=@c.cfg', '-F', 'part=@a.sh', `${U}/bundles/form`);
    ok(answer, 201);
    const { revision, parts } = answer.json();
    assert.deepEqual(
      [revision, parts.map(({ filename, type }: Record<string, string>) => [filename, type])],
      [
        1,
        [
          ['a.sh', 'text/x-shellscript'],
          ['c.cfg', 'text/cloud-config'],
        ],
      ],
    );
    const added = await curl('-F', 'part=@b.sh', `${U}/bundles/form`);
    ok(added, 200);
    assert.deepEqual([added.json().revision, added.json().parts.length], [2, 3]);
    assert.equal((await curl(`${U}/bundles/form/parts/a.sh`)).body, SH);
  });

  test('-F \'part=@c;headers="Merge-Type: …"\': a header of that part is its option', async () => {
    const answer = await curl(
      '-X',
      'PUT',
      '-F',
      `part=@c.cfg;headers="Merge-Type: ${MERGE}"`,
      '-F',
      'part=@a.sh;type=text/x-shellscript-per-boot',
      `${U}/bundles/options`,
    );
    ok(answer, 201);
    const [script, config] = answer.json().parts;
    assert.deepEqual([config.merge, script.type], [MERGE, 'text/x-shellscript-per-boot']);
  });

  test('-F instance=@x.yaml: a form that has the instance in a field, and its secrets in others', async () => {
    ok(await curl('-T', 'a.sh', `${U}/bundles/for-forms/parts/`), 201);
    writeFileSync(join(dir, 'form.yaml'), 'bundles: [for-forms]\n');
    const put = (...fields: string[]) => curl('-X', 'PUT', ...fields.flatMap((field) => ['-F', field]), `${U}/instances/form`);
    ok(await put('instance=@form.yaml'), 201);
    for (const field of ['instance=<form.yaml', 'instance=@form.yaml;type=application/yaml']) {
      const again = await put(field);
      ok(again, 200);
      assert.deepEqual([again.json().changed, again.json().bundles], [false, ['for-forms']], field);
    }
    writeFileSync(join(dir, 'tls.key'), 'a key\n');
    const withSecrets = await put('instance=@form.yaml', 'secrets.tls=@tls.key', 'secrets.token=<a.sh', 'secrets.word=plain');
    ok(withSecrets, 200);
    assert.deepEqual(
      withSecrets
        .json()
        .status.secrets.map(({ name, bytes, endsWithNewline }: Record<string, unknown>) => [name, bytes, endsWithNewline]),
      [
        ['tls', 6, true],
        ['token', SH.length, true],
        ['word', 5, false],
      ],
    );
    assert.match(refused(await put('instance=@form.yaml', 'secret.token=<a.sh'), 400, 'unknown_field'), /"secret\.token"/);
    refused(await put('instance=@form.yaml', 'instance=@form.yaml'), 400, 'bad_form');
    refused(await put('instance=bundles: ['), 400, 'bad_yaml');
    refused(await put('instance='), 400, 'empty_body');
    const cut = ['-H', 'Content-Type: multipart/form-data; boundary=x', '--data-binary', '--x\r\n'];
    refused(await curl('-X', 'PUT', ...cut, `${U}/instances/form`), 400, 'bad_form');
    assert.equal((await curl(`${U}/instances/form`)).json().status.version, 2);
  });

  test('git archive HEAD:folder | curl -T -: one revision; a folder in it is refused by name', async () => {
    const git = (...args: string[]) =>
      execFileSync('git', ['-C', dir, '-c', 'user.name=x', '-c', 'user.email=x@x', '-c', 'init.defaultBranch=main', ...args]);
    git('init', '-q');
    git('add', 'd/a.sh', 'a.sh', 'c.cfg');
    git('commit', '-qm', 'x');
    writeFileSync(join(dir, 'd.tar'), git('archive', 'HEAD:d'));
    writeFileSync(join(dir, 'all.tar'), git('archive', 'HEAD'));
    const put = (file: string) =>
      pipe(readFileSync(join(dir, file), 'latin1'), '-T', '-', '-H', 'Content-Type: application/x-tar', `${U}/bundles/git`);
    ok(await put('d.tar'), 201);
    const again = await put('d.tar');
    ok(again, 200);
    assert.deepEqual([again.json().changed, again.json().revision], [false, 1]);
    assert.match(refused(await put('all.tar'), 422, 'tar_entry'), /"d\/?"/);
  });

  test('-T a.sh -C -: an upload cannot be resumed', async () => {
    assert.match(refused(await curl('-C', '5', '-T', 'a.sh', `${U}/bundles/b/parts/`), 400, 'content_range'), /whole file/);
  });

  test('?merge=list(append)+str(): the plus that became a space is read back; names and a header do the same', async () => {
    const put = async (...args: string[]) => {
      const answer = await curl('-T', 'c.cfg', ...args);
      assert.equal(answer.exit, 0, answer.body);
      return answer.json().merge;
    };
    assert.equal(await put(`${U}/bundles/m/parts/?merge=list(append)+dict()+str()`), 'list(append)+dict()+str()');
    assert.equal(await put(`${U}/bundles/m/parts/`), 'list(append)+dict()+str()', 'not said, it stays');
    assert.equal(await put(`${U}/bundles/m/parts/?merge=append`), MERGE);
    assert.equal(await put(`${U}/bundles/m/parts/?merge=replace`), 'dict(replace)+list()+str()');
    assert.equal(await put('-H', `Merge-Type: ${MERGE}`, `${U}/bundles/m/parts/`), MERGE);
    assert.equal(await put(`${U}/bundles/m/parts/?merge=`), null);
  });

  test('DELETE with a Content-Type and no body has no body', async () => {
    ok(await curl('-T', 'a.sh', `${U}/bundles/gone/parts/`), 201);
    ok(await curl('-X', 'DELETE', '-H', 'Content-Type: application/json', `${U}/bundles/gone/parts/a.sh`), 200);
    ok(await curl('-X', 'DELETE', '-H', 'Content-Type: application/json', `${U}/bundles/gone`), 204);
  });

  test('--json, YAML, or no type and a body that starts with {: alike', async () => {
    ok(await curl('-T', 'a.sh', `${U}/bundles/for-instances/parts/`), 201);
    const body = '{"bundles": ["for-instances"], "labels": {"site": "fra1"}}';
    ok(await curl('-X', 'PUT', '--json', body, `${U}/instances/vm`), 201);
    for (const args of [
      ['-H', 'Content-Type: application/yaml', '--data-binary', '@inst.yaml'],
      ['--data-binary', '@inst.yaml'],
      ['-d', body],
      ['-T', 'inst.yaml'],
    ]) {
      const answer = await curl('-X', 'PUT', ...args, `${U}/instances/vm`);
      ok(answer, 200);
      assert.equal(answer.json().changed, false, args.join(' '));
    }
    refused(await curl('-X', 'PUT', '-d', '@inst.yaml', `${U}/instances/vm`), 400, 'bad_yaml');
  });

  test('-u :TOKEN and .netrc are the token; none or a wrong one is exit 22', async () => {
    ok(await run(['-u', `:${server.token}`, `${U}/bundles`]), 200);
    writeFileSync(join(dir, 'netrc'), `machine 127.0.0.1 login me password ${server.token}\n`);
    ok(await run(['--netrc-file', 'netrc', `${U}/bundles`]), 200);
    refused(await run([`${U}/bundles`]), 401, 'no_token');
    refused(await run(['-H', 'Authorization: Bearer x', '-T', 'a.sh', `${U}/bundles/b/parts/`]), 401, 'bad_token');
  });

  test('a big file goes through with Expect and without; a refusal of a big file can be read', async () => {
    ok(await curl('-T', 'big.sh', `${U}/bundles/big/parts/`), 201);
    ok(await curl('-H', 'Expect:', '-T', 'big.sh', `${U}/bundles/big/parts/second.sh`), 201);
    for (const expect of [[], ['-H', 'Expect:']]) {
      assert.match(
        refused(await curl(...expect, '-T', 'huge.sh', `${U}/bundles/big/parts/`), 413, 'body_too_large'),
        /at most 4194304/,
      );
      refused(await run([...expect, '-T', 'huge.sh', `${U}/bundles/big/parts/`]), 401, 'no_token');
      refused(await curl(...expect, '-H', 'If-None-Match: *', '-T', 'big.sh', `${U}/bundles/big/parts/`), 412, 'exists');
      refused(
        await pipe(readFileSync(join(dir, 'huge.sh'), 'utf8'), ...expect, '-T', '-', `${U}/bundles/big/parts/x`),
        413,
        'body_too_large',
      );
    }
  });

  test('the stub fetched by -o, the document by its URL', async () => {
    ok(await curl(`${U}/instances/vm/stub`, '-o', 'userdata'), 200);
    const [directive, url = ''] = readFileSync(join(dir, 'userdata'), 'utf8').split('\n');
    assert.equal(directive, '#include-once');
    assert.match((await run([url])).body, /^Content-Type: multipart\/mixed; boundary="[^"]+"\nMIME-Version: 1\.0\n/);
    const compressed = await run(['--compressed', url]);
    assert.equal(compressed.body, (await run([url])).body);
    const { items } = (await curl(`${U}/instances/vm/deliveries`)).json();
    assert.match(items[0].userAgent, /^curl\//);
    assert.equal(items[0].outcome, 'delivered');
  });
});
