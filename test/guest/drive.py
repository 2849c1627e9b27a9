"""Stands in for cloud-init: loads a part handler and calls it as cloudinit/handlers/__init__.py does.

Usage: drive.py HANDLER < calls.json; each call is {"ctype", "filename", "text" | "base64" | "nothing"}.
Prints {"types", "seconds"} and fails on any exception.
"""
import base64
import json
import sys
import time

with open(sys.argv[1], 'rb') as stream:
    source = stream.read().decode('ascii')
calls = json.loads(sys.stdin.read())
began = time.time()
handler = type(sys)('part_handler_000')
exec(compile(source, sys.argv[1], 'exec'), handler.__dict__)
handler.handle_part(None, '__begin__', None, None)
for call in calls:
    payload = None
    if 'text' in call:
        payload = call['text']
    elif 'base64' in call:
        payload = base64.b64decode(call['base64'])
    handler.handle_part(None, call['ctype'], call['filename'], payload)
handler.handle_part(None, '__end__', None, None)
print(json.dumps({'types': handler.list_types(), 'seconds': time.time() - began}))
