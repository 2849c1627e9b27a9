import type { ParsedScript, SyntaxNode } from 'unbash';
import type { Finding } from '../domain/finding.ts';
import { placeAt } from './offset.ts';
import { MAX_SOURCE, readPython } from './python.ts';
import { notJudged } from './remark.ts';
import { trimStart } from './sniff.ts';
import { closestKey } from './spelling.ts';

/** Longer scripts are not parsed: what hostile ones cost grows with the square (0.15 s for this many characters). */
const MAX_SHELL = 128 * 1024;
/** The kernel reads so much of a first line (linux/binfmts.h, BINPRM_BUF_SIZE). */
const SHEBANG_BYTES = 256;

/**
 * Judges a script or boothook as it will be run: its first line as the kernel reads it, its line ends as cloud-init leaves them, and whether the
 * shell or Python can read it. Other interpreters' languages are not judged. A script without `#!` is spoken of elsewhere (sniff.ts).
 */
export async function inspectScript(filename: string, type: string, body: Uint8Array): Promise<Finding[]> {
  const text = unixLineEnds(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  const start = startOf(type, text);
  const report: Report = (severity, code, offset, message) => ({
    severity,
    code,
    part: filename,
    ...placeAt(text, offset),
    message,
  });
  const script = text.slice(start);
  if (!script.startsWith('#!')) return NO_SCRIPT.test(script) ? [report('error', 'not_a_script', start, NOT_A_SCRIPT)] : [];
  // So much more than the kernel reads is enough to see that it is too long.
  const line = script.slice(2, Math.min(script.search(/\n|$/), 4 * SHEBANG_BYTES));
  const shebang = readShebang(line);
  const findings = checkShebang(line, shebang).map(({ severity, message }) => report(severity, 'bad_shebang', start, message));
  const at = (fault: Fault) => report('warning', fault.code, start + fault.offset, fault.message);
  if (SHELL.test(shebang.program)) findings.push(...(await checkShell(script)).map(at));
  if (PYTHON.test(shebang.program)) findings.push(...checkPython(script, shebang.program).map(at));
  const most = SHELL.test(shebang.program) ? MAX_SHELL : PYTHON.test(shebang.program) ? MAX_SOURCE : Number.POSITIVE_INFINITY;
  if (script.length > most)
    findings.push(notJudged(filename, `the script's syntax is not judged: it has more than ${most} characters`));
  return findings;
}

type Report = (severity: Finding['severity'], code: string, offset: number, message: string) => Finding;

/** A fault at an offset of the script. */
interface Fault {
  code: string;
  offset: number;
  message: string;
}

/** What failed downloads and other systems leave: web pages, XML, GitHub's answer, batch files, PowerShell as cloudbase-init takes it. */
const NO_SCRIPT =
  /^\s*(?:<(?:!doctype|html|head|body|\?xml|powershell|script)\b|404: Not Found\s*$|@echo off\b|#ps1(?:_\w+)?\s)/i;
const NOT_A_SCRIPT =
  'this is a web page, an error message or a script of Windows, and would be run as it is: fetch the script anew, or begin it with #!';

/** As cloud-init writes scripts and boothooks (util.py, dos2unix): CRLF becomes LF only if the first line ends so. */
function unixLineEnds(text: string): string {
  const end = text.indexOf('\n');
  return end > 0 && text[end - 1] === '\r' ? text.replaceAll('\r\n', '\n') : text;
}

/** Where the bytes begin that will be run: cloud-init cuts a boothook's mark off, if it is spelt exactly (handlers/boot_hook.py). */
function startOf(type: string, text: string): number {
  const mark = '#cloud-boothook';
  if (type !== 'text/cloud-boothook') return 0;
  const rest = text.startsWith(mark) ? text.slice(mark.length) : text;
  return text.length - trimStart(rest).length;
}

/** A first line, without its `#!`, as the kernel splits it: one word, and all the rest as one argument (fs/binfmt_script.c). */
interface Shebang {
  interpreter: string;
  argument: string;
  /** The name of what reads the script in the end: env's argument, where env is the interpreter. */
  program: string;
}

function readShebang(line: string): Shebang {
  const [, interpreter = '', argument = ''] = /^[ \t]*([^ \t]*)[ \t]*(.*)$/s.exec(line.replace(/[ \t]+$/, '')) ?? [];
  const name = baseName(interpreter);
  if (!/^(?:env|busybox|toybox)$/.test(name)) return { interpreter, argument, program: name };
  // `env -S python3 -u`; a word may also be glued to -S, and variables may come before the command.
  const words = argument.split(/[ \t]+/).map((word) => word.replace(/^-[a-zA-Z]*S/, ''));
  const command = words.find((word) => word !== '' && !/^-|=/.test(word));
  return { interpreter, argument, program: baseName(command ?? '') };
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

const SHELL = /^(?:ba|da|a)?sh$/;
const PYTHON = /^python[\d.]*$/;
const FOLDERS = new Set(['/bin', '/usr/bin', '/usr/local/bin', '/sbin', '/usr/sbin', '/usr/local/sbin']);
/** What first lines commonly name; also what differs from that in a letter and is right. */
const INTERPRETERS = new Set(
  `sh bash dash ash zsh ksh mksh oksh lksh yash fish csh tcsh rbash rzsh rksh posh busybox toybox env python python2 python3 ipython ipython3
   jython pypy pypy3 perl raku ruby jruby mruby node nodejs deno bun php lua luajit tclsh expect awk gawk mawk nawk sed make guile
   Rscript julia java groovy pwsh ansible-playbook cloud-init runhaskell true false cat`.split(/\s+/),
);

/** @param line all that follows `#!` in the first line */
function checkShebang(
  line: string,
  { interpreter, argument, program }: Shebang,
): { severity: Finding['severity']; message: string }[] {
  const error = (message: string) => [{ severity: 'error' as const, message }];
  const warning = (message: string) => [{ severity: 'warning' as const, message }];
  if (interpreter === '') return error('#! names no interpreter: write #!/bin/sh or another');
  if (line.includes('\r'))
    return error("the kernel takes the CR in this line for a part of the interpreter's name: save the file with LF");
  if (/[^\x21-\x7e]/.test(interpreter))
    return error(
      'the path of the interpreter holds a character that is not plain ASCII (a no-break space?): type the line anew',
    );
  if (Buffer.byteLength(line) > SHEBANG_BYTES - 2)
    return error(`the kernel reads ${SHEBANG_BYTES} bytes of the first line: shorten it`);

  const several = /[ \t]/.test(argument);
  const name = baseName(interpreter);
  if (name === 'env' && several && !/^(?:-[a-zA-Z]*S|--split-string)/.test(argument))
    return error('the kernel gives env all that follows as one word: write env -S before several words');
  if (SHELL.test(name) && several)
    return error('the kernel gives a shell all that follows as one option, which it refuses: write one word (-eu), or use set');
  if (PYTHON.test(name) && /^-[^cmWX\s]*[ \t]+[-#]/.test(argument))
    return error('the kernel gives Python all that follows as one option, which it refuses: write one word (-uE)');

  if (!interpreter.startsWith('/'))
    return warning(
      'the path of the interpreter does not begin with /, so it depends on the folder the script is run in: write it whole',
    );
  const folder = interpreter.slice(0, interpreter.lastIndexOf('/'));
  const misspelt = (word: string, known: ReadonlySet<string>) => !known.has(word) && closestKey(word, known) !== null;
  const versionless = program.replace(/[\d.-]+$/, '');
  if (misspelt(folder, FOLDERS))
    return warning('there is hardly a folder of that name: is the path of the interpreter misspelt?');
  if (FOLDERS.has(folder) && !INTERPRETERS.has(program) && !INTERPRETERS.has(versionless) && misspelt(program, INTERPRETERS))
    return warning('there is hardly an interpreter of that name: is it misspelt?');
  return [];
}

const CRLF_KEPT =
  'lines end in CRLF, the first one does not, so cloud-init leaves them and the shell takes the CR as text: save the file with LF';

/**
 * Where the first CRLF is, if most of the lines after the first one end so. A few may be meant, in a here-document; where they are not, the parser
 * finds them.
 */
function crlfKept(script: string): number | null {
  let [lines, kept, first] = [0, 0, 0];
  for (let at = script.indexOf('\n', script.indexOf('\n') + 1); at >= 0; at = script.indexOf('\n', at + 1)) {
    lines++;
    if (script[at - 1] !== '\r') continue;
    kept++;
    first ||= at - 1;
  }
  return kept * 2 > lines ? first : null;
}

async function checkShell(script: string): Promise<Fault[]> {
  const kept = crlfKept(script);
  if (kept !== null) return [{ code: 'crlf_kept', offset: kept, message: CRLF_KEPT }];
  if (script.length > MAX_SHELL) return [];
  const fault = await shellFault(script);
  return fault ? [{ code: 'shell_syntax', ...fault }] : [];
}

/** The first place where neither bash nor a POSIX shell could go on, or null. */
async function shellFault(script: string): Promise<{ offset: number; message: string } | null> {
  const { parse, forEachChild } = await import('unbash');
  let tree: ParsedScript;
  try {
    tree = parse(script);
  } catch (error) {
    // Thousands of things in each other overflow the parser's stack; what it cannot read it cannot judge.
    if (error instanceof RangeError) return null;
    throw error;
  }
  const [error] = [...(tree.errors ?? [])].sort((a, b) => a.pos - b.pos);
  if (!error || error.message.startsWith('maximum ') || endsBefore(tree, error.pos)) return null;
  const [, closer, construct] = /^expected '([a-z\]})]+)' to close '?([a-z[ ]+)'?$/.exec(error.message) ?? [];
  if (closer === undefined || construct === undefined) return { offset: error.pos, message: explain(error.message) };
  // It is noticed where the script ends; of use is where it begins.
  const offset = unclosed(script, tree, closer, construct, forEachChild);
  const what = `${closer} is missing: nothing closes the ${construct}`;
  return offset === null
    ? { offset: error.pos, message: `${what} before it` }
    : { offset, message: `${what} that begins here` };
}

/** The parser's words for what it expects to be closed, and the names of their nodes. */
const CONSTRUCTS: ReadonlyMap<string, RegExp> = new Map([
  ['if', /^If$/],
  ['for', /^(?:Arithmetic)?For$/],
  ['while', /^While$/],
  ['until', /^While$/],
  ['select', /^Select$/],
  ['case', /^Case$/],
  ['brace group', /^BraceGroup$/],
  ['subshell', /^Subshell$/],
  ['[[', /^TestCommand$/],
]);

/** Where the innermost construct begins that lies at the script's end and lacks its last word. */
function unclosed(
  script: string,
  tree: ParsedScript,
  closer: string,
  construct: string,
  forEachChild: (node: SyntaxNode, callback: (child: SyntaxNode) => unknown) => void,
): number | null {
  let found: number | null = null;
  for (let node: SyntaxNode | null = tree; node !== null; ) {
    const isIt = CONSTRUCTS.get(construct)?.test(node.type) && script.slice(node.end - closer.length, node.end) !== closer;
    if (isIt) found = node.pos;
    let last: SyntaxNode | null = null;
    forEachChild(node, (child) => {
      // What a word holds is a script of its own, and costly to read.
      if (child.type !== 'Word' && child.type !== 'Assignment') last = child;
    });
    node = last;
  }
  return found;
}

/** Whether the script is over by then: a shell reads on line by line, so an archive may follow an `exit`. */
function endsBefore(tree: ParsedScript, offset: number): boolean {
  return tree.commands.some(({ command, end }) => {
    if (end > offset || command.type !== 'Command') return false;
    const name = command.name?.text;
    return name === 'exit' || (name === 'exec' && command.args.length > 0);
  });
}

/** The parser's messages may hold words of the script; ours hold a shell's own words only. */
function explain(message: string): string {
  const [, found] = /^unexpected token '(.*)'$/s.exec(message) ?? [];
  if (found !== undefined)
    return SHELL_WORDS.has(found)
      ? `${found} stands where none can: is something before it missing or one too many?`
      : 'the shell cannot read on from here: is something before it missing?';
  const [, quoted] = /^unterminated ([a-zA-Z -]+)$/.exec(message) ?? [];
  if (quoted !== undefined) return `what begins here is never closed: ${UNCLOSED.get(quoted) ?? quoted}`;
  const [, expected] = /^expected (?:command after )?'(then|do|else|in|&&|\|\||\||\|&)'/.exec(message) ?? [];
  if (expected !== undefined)
    return message.startsWith('expected command')
      ? `a command must follow ${expected}: an empty one is written :`
      : `${expected} is missing`;
  return 'the shell cannot read on from here: is something before it missing?';
}

const SHELL_WORDS = new Set(
  'if then elif else fi for while until do done case esac in { } ( ) ;; ; & && || | newline ]]'.split(' '),
);
const UNCLOSED: ReadonlyMap<string, string> = new Map([
  ['backtick', 'a backquote'],
  ['command substitution', '$(…)'],
  ['process substitution', '<(…)'],
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's.
  ['parameter expansion', '${…}'],
  ['arithmetic expansion', '$((…))'],
  // What it takes `a=(` without its end for.
  ['extended glob', 'a bracket'],
]);

/** What Python 2 alone takes is a fault only where Python 3 is asked for. */
function checkPython(script: string, program: string): Fault[] {
  const { fault, python2 } = readPython(script);
  const found = fault ?? (program.startsWith('python3') ? python2 : null);
  return found ? [{ code: 'python_syntax', offset: found.offset, message: `Python cannot read this: ${found.problem}` }] : [];
}
