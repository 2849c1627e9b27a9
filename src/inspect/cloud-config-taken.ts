import type { Path, Problem } from './json-schema.ts';
import { isAsWritten } from './schema.ts';

/** A value, and what was written for it where it stands unquoted. */
type Takes = (value: unknown, plain: string | null) => boolean;

/** util.py, translate_bool and is_false: the words of both tables, in any case. */
const boolean: Takes = (value) =>
  ['string', 'number'].includes(typeof value) && /^\s*(?:true|1|on|yes|off|0|no|false)\s*$/i.test(String(value));
/** It goes through Python's `str()`, which must give what was written. */
const number: Takes = (value, plain) =>
  (typeof value === 'number' || value instanceof Date) && plain !== null && isAsWritten(plain);
const numeral: Takes = (value) => typeof value === 'number' || (typeof value === 'string' && /^\s*[0-9]{1,9}\s*$/.test(value));
const word: Takes = (value) => typeof value === 'string' && /^[^\s,]{1,200}$/.test(value);
const oneLine: Takes = (value) => typeof value === 'string' && /^[^\r\n]*\n?$/.test(value);

/** THE TABLE of values that the schema refuses and the module takes as they were meant; `*` is any key or index. */
const TAKEN: readonly (readonly [path: string, takes: Takes])[] = [
  // util.py, shellify: str() of every word of a list.
  ['runcmd.*.*', number],
  ['bootcmd.*.*', number],
  // An item without a command is passed over.
  ['runcmd.*', (value) => value === null],
  ['bootcmd.*', (value) => value === null],
  // config/modules.py, _fixup_modules: a module that is not there is passed over; it may be another version's, or one's own.
  ...['cloud_init_modules', 'cloud_config_modules', 'cloud_final_modules'].flatMap((list) => [
    [`${list}.*`, word] as const,
    [`${list}.*.*`, word] as const,
  ]),
  // cc_mounts.py: str() of every field, and null for the default.
  ['mounts.*.*', (value, plain) => value === null || number(value, plain)],
  // cc_mounts.py, handle_swapcfg; util.py, human2bytes: digits alone are bytes, and a final B is cut off.
  ['swap.size', (value) => typeof value === 'string' && /^[0-9]{1,20}(?:\.[0-9]{1,9})?[KMGT]?B?$/.test(value)],
  ['swap.maxsize', (value) => typeof value === 'string' && /^[0-9]{1,20}(?:\.[0-9]{1,9})?[KMGT]?B?$/.test(value)],
  // cc_write_files.py, decode_perms: a number is taken as it is, and 0644 is one that YAML reads as octal.
  ['write_files.*.permissions', (value, plain) => typeof value === 'number' && plain !== null && /^0[0-7]{1,4}$/.test(plain)],
  [
    'write_files.*.encoding',
    (value) => typeof value === 'string' && /^\s*(?:gz(?:ip)?(?:\+b(?:ase)?64)?|b(?:ase)?64|text\/plain)\s*$/i.test(value),
  ],
  ['write_files.*.append', boolean],
  ['write_files.*.defer', boolean],
  // util.py, get_cfg_option_bool; some modules ask is_true or is_false.
  ...[
    'allow_public_ssh_keys',
    'apt_reboot_if_required',
    'apt_update',
    'apt_upgrade',
    'chpasswd.expire',
    'disable_ec2_metadata',
    'disable_root',
    'growpart.ignore_growroot_disabled',
    'manage_etc_hosts',
    'manage_resolv_conf',
    'no_ssh_fingerprints',
    'ntp.enabled',
    'package_reboot_if_required',
    'package_update',
    'package_upgrade',
    'prefer_fqdn_over_hostname',
    'preserve_hostname',
    'resize_rootfs',
    'ssh_publish_hostkeys.enabled',
    'ssh_quiet_keygen',
  ].map((path) => [path, boolean] as const),
  // util.py, get_cfg_option_list: one text is a list of one, and null an empty one.
  ['packages', (value, plain) => value === null || word(value, plain)],
  ['ssh_import_id', (value, plain) => value === null || word(value, plain)],
  ['growpart.devices', word],
  // distros/__init__.py, create_user: one key instead of a list.
  ['users.*.ssh_authorized_keys', oneLine],
  ['users.*.ssh-authorized-keys', oneLine],
  ['users.*.ssh_import_id', word],
  // distros/__init__.py, write_sudo_rules: a list of rules, which older schemas do not have.
  ['users.*.sudo', (value) => Array.isArray(value) && value.every((each) => typeof each === 'string')],
  // cc_power_state_change.py, load_power_state; cc_phone_home.py: float() and int() of it.
  ['power_state.timeout', numeral],
  ['phone_home.tries', numeral],
  // cc_yum_add_repo.py, _format_repo_value: lists are joined, numbers written out.
  ['yum_repos.*.*', (value) => Array.isArray(value) && value.every((each) => typeof each === 'string')],
];

const BY_TOP = Map.groupBy(
  TAKEN.map(([path, takes]) => ({ steps: path.split('.'), takes })),
  ({ steps }) => steps[0] as string,
);

/** Whether cloud-init takes as it was meant what its schema refuses in a cloud-config. */
export function isTaken(problem: Problem, value: unknown, plain: string | null): boolean {
  const { path } = problem;
  // An empty list or mapping does nothing, which is what it says; a mount without a device is no mount.
  if (problem.why === 'size') return problem.found === 0 && path.length > 0 && !matches(path, ['mounts', '*']);
  // distros/ug_util.py, _normalize_users: dashes in a user's keys become underscores, in any version.
  if (problem.why === 'unknown_key')
    return (
      (matches(path, ['users', '*']) || matches(path, ['user'])) && problem.known.includes(problem.key.replaceAll('-', '_'))
    );
  if (problem.why !== 'value') return false;
  return BY_TOP.get(String(path[0]))?.some(({ steps, takes }) => matches(path, steps) && takes(value, plain)) ?? false;
}

/** Whether a scalar of a network configuration says what is wanted, only as another kind: "1500" for 1500. It is printed into a file alike. */
export function isTakenInNetwork(problem: Problem, value: unknown): boolean {
  if (problem.why !== 'value') return false;
  const wants = (...kinds: string[]) => kinds.some((kind) => problem.kinds.includes(kind));
  if (typeof value === 'number') return wants('string');
  return (
    typeof value === 'string' &&
    ((wants('integer', 'number') && /^[0-9]{1,10}$/.test(value)) || (wants('boolean') && boolean(value, null)))
  );
}

function matches(path: Path, steps: readonly string[]): boolean {
  return path.length === steps.length && steps.every((step, at) => step === '*' || step === path[at]);
}
