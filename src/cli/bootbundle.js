#!/usr/bin/env node
// Plain old JavaScript, so that a Node that is too old for the rest gets as far as saying so: better-sqlite3 would crash it.
import { existsSync } from 'node:fs';
import process from 'node:process';

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  process.stderr.write(`bootbundle needs Node 22.18 or newer; this is Node ${process.versions.node}\n`);
  process.exit(1);
}
// From source Node strips the types; the published package holds what tsc made of it.
const source = new URL('./main.ts', import.meta.url);
const { main } = await import(existsSync(source) ? source.href : new URL('./main.js', import.meta.url).href);
process.exitCode = await main(process.argv.slice(2), process.env);
