import { mixedKeys } from './cloud-config-keys.ts';
import type { Path } from './json-schema.ts';
import { type Remark, showPath } from './remark.ts';
import { isAsWritten } from './schema.ts';
import { closestKey } from './spelling.ts';
import { isMapping } from './yaml.ts';

type Config = Record<string, unknown>;
/** What was written at a path, where it stands unquoted. */
type Plain = (path: Path) => string | null;
type Rule = (config: Config, plain: Plain) => Remark[];

/**
 * Finds values that are legal (or that the schema refuses without saying why), and that cloud-init loses or misreads at boot. Each rule names
 * its place in cloud-init 22.4.2; those of commands, files, the default user and webhooks are held against the real modules by a test.
 */
export function findBootTraps(config: Config, plain: Plain): Remark[] {
  return RULES.flatMap((rule) => rule(config, plain));
}

/** Of each list; nobody writes more by hand, and whoever sends more has them judged by the schema only. */
const MAX_ITEMS = 2_000;

const RULES: readonly Rule[] = [
  commands,
  writtenFiles,
  filesOfUsers,
  users,
  defaultUser,
  passwords,
  sshKeys,
  sshPasswords,
  hostNames,
  webhooks,
  networkHere,
  mixedKeys,
];

/**
 * util.py, shellify: an item that is neither text nor list is a TypeError, and then none of the commands runs; every word of a list is quoted,
 * so that a shell's operators in it are words, too.
 */
function commands(config: Config, plain: Plain): Remark[] {
  return ['runcmd', 'bootcmd'].flatMap((key) =>
    listAt(config, key).flatMap((item, index) => {
      const path = [key, index];
      if (Array.isArray(item)) return commandList(item, path, plain);
      if (item === null || typeof item === 'string') return [];
      const message = isMapping(item)
        ? `${showPath(path)} is a mapping because of a colon in the unquoted command, and so none of the commands in ${key} will run: quote the whole command`
        : `${showPath(path)} is no text, and so none of the commands in ${key} will run: quote it`;
      return [error('bad_command', path, message)];
    }),
  );
}

const OPERATORS = new Set(['|', '||', '&&', '&', '>', '>>', '<', '2>', '2>>', '2>&1', '>&2', '&>']);
/** They take such words as arguments of their own. */
const TAKES_OPERATORS = new Set(['[', '[[', 'test', 'expr', 'echo', 'printf']);

function commandList(words: readonly unknown[], path: Path, plain: Plain): Remark[] {
  const remarks = words.flatMap((word, index) => {
    const at = [...path, index];
    const written = plain(at);
    const unlike = written !== null && !isAsWritten(written);
    if (typeof word === 'string' || ((typeof word === 'number' || word instanceof Date) && !unlike)) return [];
    const what =
      Array.isArray(word) || isMapping(word) ? 'is no text' : 'reaches the command as another text than the one written here';
    return [error('misread_value', at, `${showPath(at)} ${what}: quote it`)];
  });
  const [first] = words;
  if (words.length === 1 && typeof first === 'string' && /^[\w./-]+\s+\S/.test(first))
    remarks.push(
      warning(
        'command_in_list',
        path,
        `${showPath(path)} is taken for one program name with spaces: drop the brackets, or make a word of each`,
      ),
    );
  const operator = TAKES_OPERATORS.has(String(first)) ? -1 : words.findIndex((word) => OPERATORS.has(String(word)));
  if (operator > 0)
    remarks.push(
      warning(
        'shell_operator',
        [...path, operator],
        `${showPath([...path, operator])} reaches the program as a plain word, since a list runs without a shell: make the command one text`,
      ),
    );
  return remarks;
}

/** cc_write_files.py: after an entry that fails, none of the later ones is written. */
function writtenFiles(config: Config, plain: Plain): Remark[] {
  const before = new Set<string>();
  return mappingsAt(config, 'write_files').flatMap(({ item, path }) => {
    const remarks = [...filePermissions(item, path, plain), ...fileContent(item, path)];
    const { path: file } = item;
    if (typeof file !== 'string') return remarks;
    if (file.startsWith('~'))
      remarks.push(
        warning(
          'tilde_path',
          [...path, 'path'],
          `${showPath([...path, 'path'])} begins with ~, which nothing expands: write the whole path`,
        ),
      );
    // An entry that waits for the final stage is written after all others.
    const name = JSON.stringify([file, item.defer === true]);
    if (before.has(name) && item.append !== true)
      remarks.push(
        warning(
          'overwritten_file',
          [...path, 'path'],
          `${showPath(path)} writes a file that an earlier entry wrote, which is lost: append: true adds to it`,
        ),
      );
    before.add(name);
    return remarks;
  });
}

/** cc_write_files.py, decode_perms: what is no octal number gives 0644, whatever was meant; a number counts as it is. */
function filePermissions({ permissions }: Config, path: Path, plain: Plain): Remark[] {
  const at = [...path, 'permissions'];
  const written = plain(at);
  if (typeof permissions === 'string' && !/^\s*(?:0o?)?[0-7](?:_?[0-7])*\s*$/i.test(permissions))
    return [
      error('bad_permissions', at, `${showPath(at)} is no octal number, and so the file gets 0644: write it like '0600'`),
    ];
  if (typeof permissions === 'number' && written !== null && !/^0[0-7]+$/.test(written))
    return [
      error(
        'bad_permissions',
        at,
        `${showPath(at)} is read as a decimal number, which gives other permissions: write it like '0600'`,
      ),
    ];
  return [];
}

/** cc_write_files.py, extract_contents. */
function fileContent({ content, encoding }: Config, path: Path): Remark[] {
  // Bytes (!!binary) are decoded by YAML already, and here once more.
  const text = content instanceof Uint8Array ? Buffer.from(content).toString('latin1') : content;
  if (typeof encoding !== 'string' || typeof text !== 'string') return [];
  const [, zipped, coded] = /^\s*(gz(?:ip)?)?\+?(b(?:ase)?64)?\s*$/i.exec(encoding) ?? [];
  const refuse = (code: string, what: string) => {
    const at = [...path, 'content'];
    const message = `${showPath(at)} is not ${what}, as its encoding says: cloud-init gives up there, and writes none of the later files`;
    return [error(code, at, message)];
  };
  if (coded && !isBase64(text)) return refuse('bad_base64', 'base64');
  const bytes = Buffer.from(text, coded ? 'base64' : 'latin1');
  return zipped && bytes.length > 0 && !(bytes[0] === 0x1f && bytes[1] === 0x8b) ? refuse('bad_gzip', 'gzip') : [];
}

/** base64.b64decode passes over what is not in its alphabet, so only text that is meant otherwise is told. */
function isBase64(text: string): boolean {
  const digits = text.replaceAll(/\s/g, '').replace(/=*$/, '');
  return (
    /^[A-Za-z0-9+/]*$/.test(digits) &&
    digits.length % 4 !== 1 &&
    (text.match(/=/g)?.length ?? 0) >= (4 - (digits.length % 4)) % 4
  );
}

/** The module order of cloud.cfg: write-files runs before users-groups, write-files-deferred in the final stage. */
function filesOfUsers(config: Config): Remark[] {
  const homes = new Map(
    usersOf(config).flatMap(({ item, name }) => {
      if (name === null) return [];
      return [[name, typeof item.homedir === 'string' ? item.homedir : `/home/${name}`] as const];
    }),
  );
  return mappingsAt(config, 'write_files').flatMap(({ item, path }) => {
    if (item.defer !== undefined && item.defer !== false) return [];
    const owner = typeof item.owner === 'string' ? (item.owner.split(':')[0] ?? '').trim() : '';
    if (homes.has(owner))
      return [
        warning(
          'owner_too_early',
          [...path, 'owner'],
          `${showPath(path)} is written before users are made; if this one is not in the image, that fails and the later files are lost: add defer: true`,
        ),
      ];
    const file = typeof item.path === 'string' ? item.path : '';
    return [...homes.values()].some((home) => home !== '/' && file.startsWith(`${home}/`))
      ? [
          warning(
            'home_too_early',
            [...path, 'path'],
            `${showPath(path)} is written before users are made, so the home directory would belong to root and lack its skeleton: add defer: true`,
          ),
        ]
      : [];
  });
}

/** distros/__init__.py, create_user and write_sudo_rules. */
function users(config: Config): Remark[] {
  return usersOf(config).flatMap(({ item, path }) => {
    const remarks: Remark[] = [];
    if (item.sudo === true)
      remarks.push(
        error(
          'bad_sudo',
          [...path, 'sudo'],
          `${showPath([...path, 'sudo'])} cannot be true, and no later user is made: write a rule, such as "ALL=(ALL) NOPASSWD:ALL"`,
        ),
      );
    for (const key of ['passwd', 'hashed_passwd', 'hashed-passwd'])
      if (isPlainPassword(item[key]))
        remarks.push(
          error(
            'password_not_hashed',
            [...path, key],
            `${showPath([...path, key])} wants a hash, and takes what is there for one, so nobody can log in: see mkpasswd, or use plain_text_passwd`,
          ),
        );
    const set = ['passwd', 'hashed_passwd', 'hashed-passwd', 'plain_text_passwd', 'plain-text-passwd'].find(
      (key) => isText(item[key]) && !/^[!*]/.test(String(item[key])),
    );
    if (set !== undefined && item.lock_passwd === undefined && item['lock-passwd'] === undefined)
      remarks.push(
        warning(
          'password_locked',
          [...path, set],
          `${showPath([...path, set])} is set and then locked, which is the default: add lock_passwd: false`,
        ),
      );
    return remarks;
  });
}

/** distros/ug_util.py, normalize_users_groups: without `default` among the users there is no default user, whose these keys are. */
function defaultUser(config: Config): Remark[] {
  const { users: list, user } = config;
  if (!Array.isArray(list) || list.length === 0 || user) return [];
  const isDefault = (each: unknown): boolean =>
    (typeof each === 'string' && each.split(',').some((name) => name.trim() === 'default')) ||
    (Array.isArray(each) && each.some(isDefault)) ||
    (isMapping(each) && (each.name === undefined || each.name === 'default'));
  if (list.some(isDefault)) return [];
  return ['ssh_authorized_keys', 'ssh_import_id', 'password']
    .filter((key) => config[key] !== undefined && config[key] !== null)
    .map((key) =>
      warning(
        'no_default_user',
        [key],
        `${key} at the top is the default user's, and users leaves that one out: add default to users, or give ${key === 'password' ? 'a password' : 'the keys'} to one of them`,
        'key',
      ),
    );
}

/** cc_set_passwords.py, get_users_by_type: the type is `hash` unless it is said. */
function passwords({ chpasswd }: Config): Remark[] {
  if (!isMapping(chpasswd)) return [];
  return mappingsAt(chpasswd, 'users').flatMap(({ item, path }) => {
    const at = ['chpasswd', ...path, 'password'];
    return (item.type ?? 'hash') === 'hash' && isPlainPassword(item.password)
      ? [
          error(
            'password_not_hashed',
            at,
            `${showPath(at)} is taken for a hash, and so nobody can log in with it: add type: text`,
          ),
        ]
      : [];
  });
}

/** cc_ssh.py, handle: the list is extended by what is there, which for a text is each of its characters. */
function sshKeys({ ssh_authorized_keys: keys }: Config): Remark[] {
  if (typeof keys !== 'string' && keys !== null) return [];
  return [
    error(
      'bad_value',
      ['ssh_authorized_keys'],
      'ssh_authorized_keys must be a list: of anything else no key is installed, not even those of the cloud',
    ),
  ];
}

/** cc_set_passwords.py, handle_ssh_pwauth. */
function sshPasswords({ ssh_pwauth: value }: Config): Remark[] {
  if (typeof value !== 'string' || /^\s*(?:true|1|on|yes|off|0|no|false)\s*$|^unchanged$/i.test(value)) return [];
  return [error('bad_value', ['ssh_pwauth'], 'ssh_pwauth is passed over: write true, false or unchanged')];
}

/** cc_set_hostname.py; util.py, get_hostname_fqdn. A kernel's host name has at most 64 bytes. */
function hostNames(config: Config): Remark[] {
  return ['hostname', 'fqdn'].flatMap((key) => {
    const value = config[key];
    if (value === undefined) return [];
    if (config.preserve_hostname === true)
      return [warning('hostname_ignored', [key], `${key} is not set, since preserve_hostname is true`, 'key')];
    if (
      typeof value !== 'string' ||
      (value !== '' && !/[\s/\0]/.test(value) && value.split('.').every((label) => label.length <= 63))
    )
      return [];
    return [error('bad_hostname', [key], `${key} is no host name: letters, digits and - in labels of at most 63 characters`)];
  });
}

/** reporting/handlers.py, WebHookHandler: its entry's keys are the arguments of a function. */
const WEBHOOK = ['type', 'endpoint', 'consumer_key', 'token_key', 'token_secret', 'consumer_secret', 'timeout', 'retries'];

function webhooks({ reporting }: Config): Remark[] {
  if (!isMapping(reporting)) return [];
  return Object.entries(reporting)
    .slice(0, MAX_ITEMS)
    .flatMap(([name, entry]) => {
      if (!isMapping(entry) || entry.type !== 'webhook') return [];
      return Object.keys(entry)
        .filter((key) => !WEBHOOK.includes(key))
        .slice(0, MAX_ITEMS)
        .map((key) => {
          const meant = closestKey(key, WEBHOOK);
          const path = ['reporting', name, key];
          const hint = meant === null ? 'drop it' : `did you mean ${meant}?`;
          return error(
            'unknown_key',
            path,
            `${showPath(path)} is no key of a webhook, and ends three stages of the boot with a TypeError: ${hint}`,
            'key',
          );
        });
    });
}

/** stages.py, _find_networking_config: the network is up before user-data is read. */
function networkHere({ network }: Config): Remark[] {
  if (network === undefined) return [];
  return [
    warning(
      'unknown_key',
      ['network'],
      'network is not read here, since the network is up by then: give it as the networkConfig of the instance',
      'key',
    ),
  ];
}

/** Neither a crypt(3) hash, nor one that is locked; thirteen characters may be one of the oldest kind. */
function isPlainPassword(value: unknown): boolean {
  return isText(value) && !/^[$!*_]/.test(value) && !/^[A-Za-z0-9./]{13}$/.test(value) && value !== 'x';
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

function usersOf(config: Config): { item: Config; path: Path; name: string | null }[] {
  return mappingsAt(config, 'users').map(({ item, path }) => ({ item, path, name: isText(item.name) ? item.name : null }));
}

function listAt(config: Config, key: string): unknown[] {
  const value = config[key];
  return Array.isArray(value) ? value.slice(0, MAX_ITEMS) : [];
}

function mappingsAt(config: Config, key: string): { item: Config; path: Path }[] {
  return listAt(config, key).flatMap((item, index) => (isMapping(item) ? [{ item, path: [key, index] }] : []));
}

function error(code: string, path: Path, message: string, what?: 'key'): Remark {
  return { severity: 'error', code, path, message, ...(what ? { what } : {}) };
}

function warning(code: string, path: Path, message: string, what?: 'key'): Remark {
  return { ...error(code, path, message, what), severity: 'warning' };
}
