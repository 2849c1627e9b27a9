import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findBootTraps } from '../../src/inspect/cloud-config-values.ts';
import { findPlaces } from '../../src/inspect/places.ts';
import { readYaml } from '../../src/inspect/yaml.ts';

/** Each trap as `severity code path`. */
function traps(text: string): string[] {
  const places = findPlaces(text)[0];
  const found = findBootTraps(readYaml(text)[0] as Record<string, unknown>, (path) => places?.plain(path) ?? null);
  return found.map(({ severity, code, path }) => `${severity} ${code} ${path.join('.')}`);
}

const TRAPS: readonly [text: string, ...traps: string[]][] = [
  // Commands.
  ['runcmd:\n- echo foo: bar\n- ls\n', 'error bad_command runcmd.0'],
  ['bootcmd: [5]\n', 'error bad_command bootcmd.0'],
  ['runcmd: [yes]\n', 'error bad_command runcmd.0'],
  ['runcmd: [[chmod, 0644, /x]]\n', 'error misread_value runcmd.0.1'],
  ['runcmd: [[date, 12:30]]\n', 'error misread_value runcmd.0.1'],
  ['runcmd: [[pip, install, 1.10]]\n', 'error misread_value runcmd.0.2'],
  ['runcmd: [[setenforce, on]]\n', 'error misread_value runcmd.0.1'],
  ['runcmd: [[echo, ]]\n'],
  ['runcmd: [[echo, null]]\n', 'error misread_value runcmd.0.1'],
  ['runcmd: [[echo, [a]]]\n', 'error misread_value runcmd.0.1'],
  ['runcmd: [[date, 2020-01-01 10:00:00]]\n', 'error misread_value runcmd.0.1'],
  ['runcmd: [[sleep, 5, 0.5, -1, 2020-01-01]]\n'],
  ['runcmd: [[chmod, "0644", /x]]\n'],
  ['runcmd: [["ls -l"]]\n', 'warning command_in_list runcmd.0'],
  ['runcmd: [["/opt/my program"]]\n', 'warning command_in_list runcmd.0'],
  ['runcmd: [[ls, "-l x"]]\n'],
  ['runcmd: [[cat, /a, ">", /b]]\n', 'warning shell_operator runcmd.0.2'],
  ['runcmd: [[a, "&&", b]]\n', 'warning shell_operator runcmd.0.1'],
  ['runcmd: [[test, a, ">", b], [expr, 1, "|", 2], [find, /, -exec, rm, "{}", ;]]\n'],
  // Files.
  ['write_files: [{path: /a, permissions: 644}]\n', 'error bad_permissions write_files.0.permissions'],
  ['write_files: [{path: /a, permissions: u=rw}]\n', 'error bad_permissions write_files.0.permissions'],
  ['write_files: [{path: /a, permissions: "0888"}]\n', 'error bad_permissions write_files.0.permissions'],
  ['write_files: [{path: /a, permissions: ""}]\n', 'error bad_permissions write_files.0.permissions'],
  ['write_files: [{path: /a, permissions: 0644}, {path: /b, permissions: "644"}, {path: /c, permissions: 0o600}]\n'],
  ['write_files: [{path: /a, encoding: b64, content: "hello, world"}]\n', 'error bad_base64 write_files.0.content'],
  ['write_files: [{path: /a, encoding: base64, content: aGk}]\n', 'error bad_base64 write_files.0.content'],
  ['write_files: [{path: /a, encoding: b64, content: "aGk_-w=="}]\n', 'error bad_base64 write_files.0.content'],
  ['write_files: [{path: /a, encoding: b64, content: ""}, {path: /b, encoding: B64, content: "aG\\n k=\\n"}]\n'],
  ['write_files: [{path: /a, encoding: gz+b64, content: aGk=}]\n', 'error bad_gzip write_files.0.content'],
  ['write_files: [{path: /a, encoding: gzip, content: text}]\n', 'error bad_gzip write_files.0.content'],
  ['write_files: [{path: /a, encoding: gz, content: !!binary aGk=}]\n', 'error bad_gzip write_files.0.content'],
  ['write_files: [{path: /a, encoding: gz+base64, content: H4sIAAAAAAAAA8vIBACsKpPYAgAAAA==}]\n'],
  ['write_files: [{path: /a, encoding: text/plain, content: "x, y"}, {path: /b, encoding: strange, content: "x, y"}]\n'],
  ['write_files: [{path: ~/a}]\n', 'warning tilde_path write_files.0.path'],
  ['write_files: [{path: /a}, {path: /a}]\n', 'warning overwritten_file write_files.1.path'],
  ['write_files: [{path: /a}, {path: /a, append: true}, {path: /a, defer: true}]\n'],
  ['users: [{name: u}]\nwrite_files: [{path: /etc/a, owner: "u:u"}]\n', 'warning owner_too_early write_files.0.owner'],
  ['users: [{name: u}]\nwrite_files: [{path: /home/u/a}]\n', 'warning home_too_early write_files.0.path'],
  [
    'users: [{name: u, homedir: /srv/u}]\nwrite_files: [{path: /srv/u/a}, {path: /home/u/a}]\n',
    'warning home_too_early write_files.0.path',
  ],
  ['users: [{name: u}]\nwrite_files: [{path: /home/u/a, owner: u, defer: true}, {path: /home/uu, owner: root}]\n'],
  // Users.
  ['users: [default, {name: u, sudo: true}]\n', 'error bad_sudo users.1.sudo'],
  ['users: [default, {name: u, sudo: null}, {name: v, sudo: false}, {name: w, sudo: [a]}]\n'],
  ['users: [default, {name: u, passwd: hunter2, lock_passwd: false}]\n', 'error password_not_hashed users.1.passwd'],
  [
    'users: [default, {name: u, hashed_passwd: hunter2, lock_passwd: false}]\n',
    'error password_not_hashed users.1.hashed_passwd',
  ],
  ['users: [default, {name: u, passwd: $6$a$b, lock_passwd: false}, {name: v, passwd: "!"}, {name: w, passwd: "*"}]\n'],
  ['users: [default, {name: u, plain_text_passwd: x}]\n', 'warning password_locked users.1.plain_text_passwd'],
  ['users: [default, {name: u, passwd: $6$a$b}]\n', 'warning password_locked users.1.passwd'],
  [
    'users: [default, {name: u, plain_text_passwd: x, lock_passwd: false}, {name: v, plain_text_passwd: x, lock-passwd: true}]\n',
  ],
  ['users: [{name: u}]\nssh_authorized_keys: [a]\n', 'warning no_default_user ssh_authorized_keys'],
  [
    'users: [{name: u}]\npassword: a\nssh_import_id: [a]\n',
    'warning no_default_user ssh_import_id',
    'warning no_default_user password',
  ],
  ['users: [{name: u}, default]\nssh_authorized_keys: [a]\n'],
  ['users: [[default, u]]\nssh_authorized_keys: [a]\n'],
  ['users: ["u, default"]\nssh_authorized_keys: [a]\n'],
  ['users: [{gecos: x}]\nssh_authorized_keys: [a]\n'],
  ['users: [{name: u}]\nuser: v\nssh_authorized_keys: [a]\n'],
  ['ssh_authorized_keys: [a]\n'],
  ['chpasswd: {users: [{name: u, password: secret}]}\n', 'error password_not_hashed chpasswd.users.0.password'],
  ['chpasswd: {users: [{name: u, password: x, type: text}, {name: v, password: $y$a$b}, {name: w, type: RANDOM}]}\n'],
  ['ssh_authorized_keys: ssh-rsa AAAA\n', 'error bad_value ssh_authorized_keys'],
  ['ssh_authorized_keys:\n', 'error bad_value ssh_authorized_keys'],
  ['ssh_pwauth: maybe\n', 'error bad_value ssh_pwauth'],
  ['ssh_pwauth: "unchanged"\n'],
  ['ssh_pwauth: "Yes"\n'],
  // Names, reports, network.
  ['hostname: a b\n', 'error bad_hostname hostname'],
  [`fqdn: ${'a'.repeat(64)}.example.com\n`, 'error bad_hostname fqdn'],
  ['hostname: my_host-1\nfqdn: my.host.example.com\n'],
  ['hostname: a\npreserve_hostname: true\n', 'warning hostname_ignored hostname'],
  ['reporting: {a: {type: webhook, endpoint: x, header: y}}\n', 'error unknown_key reporting.a.header'],
  ['reporting: {a: {type: webhook, endpoint: x, timeout: 5, retries: 1}, b: {type: log, level: x}}\n'],
  ['network: {version: 2}\n', 'warning unknown_key network'],
];

for (const [text, ...wanted] of TRAPS)
  test(`${wanted[0] ?? 'no trap'}: ${text.slice(0, 70).trim()}`, () => assert.deepEqual(traps(text), wanted));

test('what is of quite another shape is no trap', () => {
  for (const value of [
    '5',
    'x',
    '[5, null, [a], {b: {}}]',
    '{a: 5}',
    'null',
    'true',
    '2020-01-01',
    '!!binary aGk=',
    '!!set {a}',
  ])
    for (const key of ['runcmd', 'write_files', 'users', 'chpasswd', 'reporting', 'hostname', 'user'])
      assert.doesNotThrow(() => traps(`${key}: ${value}\n`), `${key}: ${value}`);
});

test('no message holds a value', () => {
  const secret = 'hunter2hunter2';
  for (const [text] of TRAPS) {
    const document = readYaml(text.replaceAll(/\b(?:x|hello, world|a b|maybe|u=rw)\b/g, secret))[0];
    for (const { message } of findBootTraps(document as Record<string, unknown>, () => null))
      assert.ok(!message.includes(secret), message);
  }
});
