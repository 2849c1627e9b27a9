#part-handler
"""Logs the Kubernetes manifests it is given."""
import logging

LOG = logging.getLogger(__name__)


def list_types():
    return [
        'text/x-kube-pod',
        'text/x-kube-service',
        'text/x-kube-replica',
        'text/x-kube-manifest',
        'text/x-bootbundle-config',
    ]


def handle_part(data, ctype, filename, payload):
    if ctype not in ('__begin__', '__end__'):
        LOG.info('%s: %s, %d characters', filename, ctype, len(payload))
