// biome-ignore-all lint/suspicious/noTemplateCurlyInString: they are the shell's.
import assert from 'node:assert/strict';
import { after, before, describe, it, test } from 'node:test';
import { inspectScript } from '../../src/inspect/script.ts';
import { type Driver, startCloudInit } from '../cloudinit/driver.ts';
import { findCloudInit, skipWithout } from '../cloudinit/fetch.ts';

const inspect = (text: string, type = 'text/x-shellscript') => inspectScript('a.sh', type, Buffer.from(text));
const told = async (text: string, type?: string) =>
  (await inspect(text, type)).map(({ severity, code, line, column }) => `${severity} ${code} ${line}:${column}`);

test('what a shell takes is silent', async () => {
  for (const body of [
    'set -eu\nif [ -f /etc/x ]; then . /etc/x; elif :; then :; else exit 1; fi\n',
    'cat <<EOF >/etc/motd\nit\'s "open" $(date) ${a:-`b`} fi ) }\nEOF\n',
    'cat <<-\'EOF\'\n\tif (\n\tEOF\ncat <<A <<"B"\na\nA\nb\nB\n',
    'cat <<EOF\nnever closed, as bash forgives\n',
    '[[ $a == *.x && ! ( $b =~ ^(c|d)+$ ) ]] && echo "${BASH_REMATCH[1]}"\n',
    'diff <(sort a) <(sort b) > >(tee c)\nread -r x y <<< "$z"\n',
    'a=(1 "2 3" [7]=x); a+=(4); declare -A m=([k]=v); echo "${a[@]:1:2}" "${#a[@]}" "${!m[@]}" "${a[-1]}"\n',
    'case $1 in (a|b) echo;& c) ;;& *) ;; esac\ncase x in esac\n',
    "shopt -s extglob\nrm !(a|b).@(c|d) ?(e)*(f)+(g)\necho $'a\\'b' $\"c\"\n",
    'for ((i = 0; i < 3; i++)); do (( i % 2 )) && continue; echo $((i ** 2 + 0x1F)); done\nlet "x = 1"\n',
    'my-func.1() { :; }\nfunction g { :; }\nfunction h() ( : )\nwhile read -r l; do :; done < <(ls)\n',
    'select x in a b; do break; done\ntime -p ls | wc -l |& cat\ncoproc c { cat; }\nuntil false; do break; done\n',
    'echo ${a//\\//-} ${b%%#*} ${c^^} ${d@Q} "${e:+"x y"}" ${f:-$(g "$(h)")} \\\n  more\n',
    'exec >/var/log/x 2>&1 {fd}>&- 3<>y\ntrap \'rm -f "$t"\' EXIT\n',
    'x=`echo \\`date\\``; ((a)) ; ( (b) ); ((c); d)\n',
    'tail -n +4 "$0" | tar xz\nexit 0\n__ARCHIVE__\n)(\'"`fi ${\n',
    'exec python3 - "$0" <<E\nE\n(broken "after exec\n',
    '# é ✓ “quoted”\necho "größe"\n',
    '',
  ]) {
    for (const shebang of ['#!/bin/sh', '#!/bin/bash -eu', '#! /usr/bin/env bash', '#!/bin/dash', '#!/bin/busybox sh'])
      assert.deepEqual(await told(`${shebang}\n${body}`), [], body);
    assert.deepEqual(await told(`#!/bin/sh\n${body}`.replaceAll('\n', '\r\n')), [], `CRLF ${body}`);
  }
});

test('what no shell takes is a warning at its place', async () => {
  for (const [body, place] of [
    ['echo "open\nb\n', '2:6'],
    ["echo 'it's'\n", '2:11'],
    ['if true; then\n  a\n', '2:1'],
    ['if a; then\n  if b; then\n    c\n  fi\n', '2:1'],
    ['for i in a; do\n  if x; then y; fi\n', '2:1'],
    ['f() {\n  while :; do\n    a\n}\n', '3:3'],
    ['echo a )\n', '2:8'],
    ['fi\n', '2:1'],
    ['x=$(echo a\n', '2:3'],
    ['case a in\n a) b;;\n', '2:1'],
    ['if [ a ]; echo; fi\n', '2:19'],
    ['a &&\n', '3:1'],
    ['{ a\n', '2:1'],
  ] as const)
    assert.deepEqual(await told(`#!/bin/sh\n${body}`), [`warning shell_syntax ${place}`], body);
  assert.deepEqual(await told('#cloud-boothook\n#!/bin/sh\nfi\n', 'text/cloud-boothook'), ['warning shell_syntax 3:1']);
});

test('a message holds none of the script', async () => {
  for (const body of [
    '[[ a\nhunter2',
    'echo "hunter2',
    '(hunter2',
    'if a; then b; fi hunter2',
    'x=${hunter2',
    '`hunter2',
    'for hunter2 )',
  ]) {
    const findings = await inspect(`#!/bin/bash\n${body}`);
    assert.equal(findings.length, 1, body);
    assert.ok(!JSON.stringify(findings).includes('hunter2'), body);
  }
});

test('first lines that work are silent', async () => {
  for (const line of [
    '#!/bin/sh',
    '#! /bin/sh -e ',
    '#!/usr/bin/env bash',
    '#!/usr/bin/env -S bash -e',
    '#!/usr/bin/env -vS python3 -u',
    '#!/usr/bin/env -S A=1 python3',
    '#!/usr/bin/perl -w -T',
    '#!/usr/bin/python3.11 -uE',
    '#!/usr/bin/python3 -W ignore',
    '#!/usr/libexec/platform-python',
    '#!/opt/x/bin/bsh',
    '#!/run/current-system/sw/bin/bash',
    '#!/usr/bin/awk -f',
    '#!/bin/true',
    '#!/usr/bin/ipython3',
    '#!/usr/bin/node --no-warnings',
  ])
    assert.deepEqual(await told(`${line}\n`), [], line);
});

test('first lines that no kernel, env or shell takes are errors, doubtful ones warnings', async () => {
  for (const [line, severity] of [
    ['#!', 'error'],
    ['#!/bin/sh\u00a0', 'error'],
    ['#!/bin/sh\rset -e\rls', 'error'],
    ['#!/usr/bin/env bash -e', 'error'],
    ['#!/usr/bin/env A=1 bash', 'error'],
    ['#!/bin/bash -e -u', 'error'],
    ['#!/bin/sh # why', 'error'],
    ['#!/usr/bin/python3 -u -E', 'error'],
    [`#!/bin/sh -${'e'.repeat(260)}`, 'error'],
    ['#!bin/sh', 'warning'],
    ['#!sh', 'warning'],
    ['#!/user/bin/perl', 'warning'],
    ['#!/bin/bahs', 'warning'],
    ['#!/usr/bin/pyhton3', 'warning'],
  ] as const)
    assert.deepEqual(await told(`${line}\n`), [`${severity} bad_shebang 1:1`], line);
});

test('a saved error page and scripts of Windows are errors', async () => {
  for (const text of [
    '<!DOCTYPE html>\n<html>',
    '\n<html lang=en>',
    '<?xml version="1.0"?>',
    '404: Not Found',
    '@echo off\r\n',
    '#ps1_sysnative\nGet-Item',
    '<powershell>\n',
  ])
    assert.deepEqual(
      (await inspect(text)).map(({ severity, code }) => `${severity} ${code}`),
      ['error not_a_script'],
      text,
    );
  // Nothing is known of these; that they lack #! is told when they are sniffed.
  assert.deepEqual(await told('echo hi\n'), []);
});

test('CRLF after a first line that ends in LF is told, and a few in a here-document are not', async () => {
  assert.deepEqual(await told('#!/bin/sh\nif true; then\r\n  a\r\nfi\r\n'), ['warning crlf_kept 2:14']);
  assert.deepEqual(await told('#cloud-boothook\n#!/bin/sh\r\na\r\n', 'text/cloud-boothook'), ['error bad_shebang 2:1']);
  assert.deepEqual(await told('#!/usr/bin/python3\nif a:\r\n    b\r\n'), []);
  assert.deepEqual(await told('#!/bin/sh\ncat <<E >x.ini\na\r\nb\r\nE\nls\nls\nls\n'), []);
});

test('Python scripts: version 2 only where version 3 is asked for, other languages never', async () => {
  assert.deepEqual(await told('#!/usr/bin/python3\nprint "a"\n'), ['warning python_syntax 2:1']);
  assert.deepEqual(await told('#!/usr/bin/env python3\nx = (1\n'), ['warning python_syntax 2:5']);
  for (const interpreter of ['python', 'python2', 'python2.7']) {
    assert.deepEqual(await told(`#!/usr/bin/${interpreter}\nprint "a"\n`), []);
    assert.deepEqual(await told(`#!/usr/bin/${interpreter}\nprint "a\n`), ['warning python_syntax 2:7']);
  }
  for (const interpreter of ['perl', 'ruby', 'zsh', 'env node'])
    assert.deepEqual(await told(`#!/usr/bin/${interpreter}\n)( "unlike ' anything`), []);
});

test('hostile scripts are judged in bounded time', async () => {
  const size = 128 * 1024 - 20;
  for (const piece of [
    '(',
    '$(',
    'if $(',
    'if a; then $(',
    'if a; then b $(',
    '"$(',
    '`',
    'if ',
    'f() ',
    'cat <<A ',
    '{ ',
    '$((',
    '[[ (',
    "$'",
    '\r\n',
    'case x in ',
    'a|',
    '<(',
    '"',
    '@(',
  ]) {
    const start = performance.now();
    await inspect(`#!/bin/bash\n${piece.repeat(size / piece.length)}`);
    assert.ok(performance.now() - start < 1_000, `${JSON.stringify(piece)} took ${performance.now() - start} ms`);
  }
  const large = 4 * 1024 * 1024;
  for (const text of [
    `#!/bin/bash\n${'a'.repeat(large)}`,
    `#!/bin/bash${'\n'.repeat(large)}`,
    `#!/bin/sh\n${'\r\n'.repeat(large / 2)}`,
  ]) {
    const start = performance.now();
    await inspect(text);
    assert.ok(performance.now() - start < 1_000, `${performance.now() - start} ms`);
  }
  assert.deepEqual(await told(`#!${' '.repeat(4 * 1024 * 1024)}x\n`), ['error bad_shebang 1:1']);
});

test('a script whose syntax is too long to be judged is a warning, and one that is never judged none', async () => {
  const long = 'a\n'.repeat(70_000);
  assert.deepEqual(await told(`#!/bin/sh\n${long}`), ['warning not_judged undefined:undefined']);
  assert.deepEqual(await told(`#!/usr/bin/python3\n${long}`), ['warning not_judged undefined:undefined']);
  assert.deepEqual(await told(`#!/usr/bin/perl\n${long}`), []);
  assert.deepEqual(await told(`#!/bin/sh\n${long.slice(0, 120_000)}`), []);
});

const cloudInit = await findCloudInit();

describe('line ends, held to the real cloud-init', { skip: skipWithout(cloudInit) }, () => {
  let driver: Driver;
  before(async () => {
    driver = await startCloudInit(cloudInit);
  });
  after(() => driver.close());

  const written = async (type: string, script: string) => {
    const part = `Content-Type: ${type}\nContent-Transfer-Encoding: base64\n\n${Buffer.from(script).toString('base64')}`;
    const seen = await driver.consume(
      `Content-Type: multipart/mixed; boundary="BB"\nMIME-Version: 1.0\n\n--BB\n${part}\n--BB--\n`,
    );
    const files = [seen.scripts, seen.perBoot, seen.perInstance, seen.perOnce, seen.boothooks].flat();
    assert.equal(files.length, 1);
    return files[0]?.payload.toString();
  };

  for (const type of [
    'x-shellscript',
    'x-shellscript-per-boot',
    'x-shellscript-per-instance',
    'x-shellscript-per-once',
    'cloud-boothook',
  ])
    it(`text/${type}: CRLF becomes LF if the first line ends so, and only then`, async () => {
      assert.equal(await written(`text/${type}`, '#!/bin/sh\r\na\r\nb\n'), '#!/bin/sh\na\nb\n');
      assert.equal(await written(`text/${type}`, '#!/bin/sh\na\r\nb\r\n'), '#!/bin/sh\na\r\nb\r\n');
    });

  it('a boothook loses its mark, and with CRLF the line ends too', async () => {
    assert.equal(await written('text/cloud-boothook', '#cloud-boothook\r\n#!/bin/sh\r\na\r\n'), '#!/bin/sh\na\n');
    assert.equal(await written('text/cloud-boothook', '#cloud-boothook\n#!/bin/sh\r\na\r\n'), '#!/bin/sh\r\na\r\n');
  });
});
