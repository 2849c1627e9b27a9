## template: jinja
#!/bin/sh
echo "{{ v1.region }}"
