/** Cloud-configs, archives and patches that look odd and do what they say: none of them has an error. */
export const ODD: Record<string, string> = {
  'anchors and merge keys': `#cloud-config
x-key: &key ssh-ed25519 AAAA me
x-user: &user {shell: /bin/bash, lock_passwd: true}
users:
  - default
  - {<<: *user, name: a, ssh_authorized_keys: [*key]}
  - {<<: *user, name: b, ssh_authorized_keys: [*key]}
`,
  CRLF: '#cloud-config\r\nhostname: web1\r\nruncmd:\r\n  - echo a\r\n',
  'deprecated keys': `#cloud-config
apt_update: true
apt_upgrade: true
apt_reboot_if_required: false
ca-certs: {remove-defaults: true, trusted: [x]}
ubuntu_advantage: {token: x}
grub-dpkg: {enabled: true, grub-pc/install_devices: /dev/sda, grub-pc/install_devices_empty: false}
users: [default, {name: x, lock-passwd: false, ssh-authorized-keys: [a], primary-group: x, no-create-home: true, sudo: false, uid: '1000'}]
chpasswd: {list: "a:b\\nc:RANDOM\\n", expire: false}
apt_pipelining: none
manage_etc_hosts: template
`,
  'keys of other versions and of ours': `#cloud-config
apt_proxy: http://x
datasource: {NoCloud: {}}
our_handlers_key: {a: 1}
warnings: {dsid_missing_source: off}
`,
  'what governs the document itself': `#cloud-config
merge_how: [{name: list, settings: [append]}, {name: dict, settings: [no_replace, recurse_list]}]
merge_type: list(append)+dict(recurse_array)+str()
launch-index: 0
version: v1
vendor_data: {enabled: true, prefix: [/usr/bin/ltrace]}
cloud_init_modules: [migrator, bootcmd, [write-files, always], users-groups, our-own, [our-own, always]]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user]
system_info: {default_user: {name: foo}}
output: {all: '| tee -a /var/log/cloud-init-output.log', init: {output: '> /x', error: '&1'}}
reporting: {hook: {type: webhook, endpoint: 'http://x/', timeout: 5, retries: 2}, logging: {type: log}}
`,
  'commands of every kind': `#cloud-config
bootcmd:
  - echo 192.168.1.130 us.archive.ubuntu.com >> /etc/hosts
  - [cloud-init-per, once, mymkfs, mkfs, /dev/vdb]
  -
runcmd:
  - [ls, -l, /]
  - [sh, -xc, "echo $(date) ': hello world!'"]
  - [sh, -c, 'a | b']
  - [sleep, 5]
  - [seq, 1, 0.5, 2]
  - 'echo "key: value"'
  - |
    cat <<X
    a: b
    X
  - >-
    echo
    folded
  - [wget, "http://example.org", -O, /tmp/index.html]
  - [expr, 1, '|', 2]
  - ["/opt/my program"]
`,
  'users as they may be said': `#cloud-config
groups: [admins: [root, sys], cloud-users]
user: {name: me, sudo: null}
users:
  - default
  - bob, alice
  - [carl]
  - {name: foobar, gecos: Foo B. Bar, primary_group: foobar, groups: users, selinux_user: staff_u, expiredate: '2032-09-01',
     ssh_import_id: [lp:falcojr, gh:TheRealFalcon], lock_passwd: false, passwd: $6$j212wezy$7H/1LT4f9/N3wpgNunhsIqtMj62OKiS3nyNwuizouQc3u7MbYCarYeAHWYPYb2FT.lbioDm2RrkJPb9BZMN1O/}
  - {name: cloudy, gecos: Magic Cloud App Daemon User, inactive: '5', system: true}
  - {name: fizzbuzz, shell: /bin/bash, sudo: ["ALL=(ALL) NOPASSWD:ALL"], ssh_authorized_keys: [ssh-rsa AAAA], doas: [permit nopass fizzbuzz]}
  - {snapuser: joe@joeuser.io}
  - {name: nosshlogins, ssh_redirect_user: true}
  - {name: one, ssh_authorized_keys: ssh-rsa AAAA one}
  - {name: locked, hashed_passwd: '!', lock_passwd: true}
  - {name: y, passwd: $y$j9T$abc$def, lock_passwd: false}
  - {name: desc, uid: 2000, homedir: /srv/desc}
ssh_authorized_keys: [ssh-ed25519 AAAA me]
ssh_import_id: gh:me
password: $6$x$y
ssh_pwauth: 'no'
chpasswd:
  expire: 'false'
  users: [{name: a, password: $6$x$yyyy}, {name: b, password: secret, type: text}, {name: c, type: RANDOM}]
disable_root: 0
`,
  'no users at all': '#cloud-config\nusers: []\n',
  'files of every kind': `#cloud-config
write_files:
  - {path: /etc/a, content: "x", permissions: '0644', owner: 'root:root'}
  - {path: /etc/b, content: "x", permissions: 0600}
  - {path: /etc/c, content: "x", permissions: 0o644}
  - {path: /etc/d, content: aGVsbG8=, encoding: b64}
  - {path: /etc/e, content: "aGVs\\n  bG8=\\n", encoding: BASE64, append: 'true'}
  - {path: /etc/f, content: H4sIAIDb/U8C/1NW1E/KzNMvzuBKTc7IV8hIzcnJVyjPL8pJ4QIA6N+MVxsAAAA=, encoding: gz+b64}
  - {path: /etc/g, content: !!binary H4sIAIDb/U8C/1NW1E/KzNMvzuBKTc7IV8hIzcnJVyjPL8pJ4QIA6N+MVxsAAAA=, encoding: gzip}
  - {path: /etc/h, content: !!binary aGk=}
  - {path: /etc/i}
  - {path: /root/j, content: "", defer: true}
  - {path: /home/app/k, owner: app, defer: yes}
  - {path: /etc/l, content: "x"}
  - {path: /etc/l, content: "y", append: true}
  - {path: /etc/m, source: {uri: 'https://x/', headers: {A: b}}}
  - path: /etc/n
    content: |
      2020-01-01
      12:30
      0644
users: [default, {name: app}]
`,
  'file systems': `#cloud-config
mounts:
  - [ephemeral0, /mnt, auto, "defaults,noexec"]
  - [sdc, /opt/data]
  - [xvdh, /opt/data, auto, "defaults,nofail", 0, 0]
  - [dd, /dev/zero, null, "defaults"]
  - [sdd, null]
mount_default_fields: [null, null, auto, "defaults,nofail", "0", "2"]
swap: {filename: /swap.img, size: auto, maxsize: 2GB}
growpart: {mode: auto, devices: [/], ignore_growroot_disabled: false}
resize_rootfs: noblock
device_aliases: {my_alias: /dev/sdb}
disk_setup: {my_alias: {table_type: gpt, layout: [50, 50], overwrite: true}, /dev/sdd: {table_type: mbr, layout: [[20, 82], 80]}}
fs_setup: [{label: fs1, filesystem: ext4, device: my_alias.1, cmd: mkfs -t %(filesystem)s -L %(label)s %(device)s}, {device: x, partition: auto, filesystem: ext4}]
`,
  packages: `#cloud-config
package_update: "yes"
package_upgrade: true
package_reboot_if_required: 1
packages:
  - pwgen
  - pastebinit
  - [libpython3.8, 3.8.10-0ubuntu1~20.04.2]
  - snap: [certbot, [juju, --edge]]
  - apt: [mg]
`,
  'a package alone': '#cloud-config\npackages: nginx\n',
  'empty lists, as a loop leaves them':
    '#cloud-config\nruncmd: []\nwrite_files: []\npackages: []\nbootcmd: []\nmounts: []\nsnap: {}\n',
  apt: `#cloud-config
apt:
  preserve_sources_list: true
  disable_suites: [$RELEASE-updates]
  primary: [{arches: [default], uri: 'http://us.archive.ubuntu.com/ubuntu'}]
  security: [{arches: [s390x, arm64], search: ['http://x']}]
  debconf_selections: {set1: the-package the-package/some-flag boolean true}
  conf: |
    APT { Get { Assume-Yes "true"; }; };
  proxy: http://[[user][:pass]@]host[:port]/
  sources_list: |
    deb http://x $RELEASE main
  sources:
    source1: {keyid: keyid, keyserver: k, source: 'deb [signed-by=$KEY_FILE] http://x/ bionic main'}
    source2: {source: 'ppa:x/y'}
    source3: {key: 'x', append: false}
`,
  'snap, lxd, ubuntu': `#cloud-config
snap:
  assertions: {00: "signed", 02: "too"}
  commands:
    00: snap create-user --sudoer --known foo@bar.com
    01: [snap, install, vlc]
    02: 'snap list'
lxd: {init: {network_address: 0.0.0.0, network_port: 8443, storage_backend: zfs}, bridge: {mode: new, name: lxdbr0, mtu: 1500}}
ubuntu_pro: {token: x, enable: [fips]}
drivers: {nvidia: {license-accepted: true}}
wireguard: {interfaces: [{name: wg0, config_path: /etc/wireguard/wg0.conf, content: x}], readinessprobe: ['nc 10.0.0.1 80']}
`,
  'names and time': `#cloud-config
hostname: web-1.example.com
fqdn: web-1.example.com
prefer_fqdn_over_hostname: true
create_hostname_file: true
manage_etc_hosts: localhost
timezone: Europe/Berlin
locale: de_DE.UTF-8
keyboard: {layout: de, model: pc105, variant: nodeadkeys, options: compose:rwin}
ntp: {enabled: 'true', ntp_client: chrony, pools: [0.int.pool.ntp.org], servers: [ntp.example.com, 192.168.1.1], allow: [192.168.1.0/24]}
manage_resolv_conf: 'true'
resolv_conf: {nameservers: [8.8.8.8], searchdomains: [a.b], domain: c, options: {rotate: true, timeout: 1}}
final_message: "up $UPTIME seconds"
`,
  'an empty ntp': '#cloud-config\nntp:\n',
  'the end': `#cloud-config
power_state: {delay: now, mode: poweroff, message: Bye, timeout: "30", condition: test -f /x}
phone_home: {url: 'http://x/$INSTANCE_ID/', post: [pub_key_rsa, instance_id, fqdn], tries: "3"}
random_seed: {file: /dev/urandom, data: x, encoding: raw, command: [sh, -c, x], command_required: false}
`,
  delays: '#cloud-config\npower_state: {delay: +5, mode: reboot, condition: [test, -f, /x], timeout: 0.5}\n',
  'delay as a text': '#cloud-config\npower_state: {delay: "+5", mode: halt, condition: true}\n',
  ssh: `#cloud-config
ssh_keys:
  rsa_private: |
    -----BEGIN RSA PRIVATE KEY-----
    x
    -----END RSA PRIVATE KEY-----
  rsa_public: ssh-rsa AAAA
ssh_deletekeys: true
ssh_genkeytypes: [rsa, ecdsa, ed25519]
ssh_publish_hostkeys: {enabled: 'yes', blacklist: [rsa]}
ssh_quiet_keygen: on
allow_public_ssh_keys: true
no_ssh_fingerprints: 1
`,
  'yum and zypper': `#cloud-config
yum_repos:
  epel-testing: {baseurl: 'http://x/$basearch', enabled: false, failovermethod: priority, gpgcheck: true, name: Extra, priority: 10}
  many: {baseurl: ['http://a', 'http://b']}
  mirrored: {mirrorlist: 'http://x'}
zypper: {repos: [{id: opensuse-oss, name: os-oss, baseurl: 'http://x', enabled: 1}], config: {servicesdir: /etc}}
`,
  'configuration management': `#cloud-config
puppet: {install: true, version: 7.7.0, conf: {agent: {server: x}, ca_cert: y}, csr_attributes: {custom_attributes: {1.2.840: x}}}
salt_minion: {conf: {master: x}, grains: {role: [web]}, public_key: a, private_key: b, pki_dir: /etc}
chef: {directories: [/etc/chef], validation_name: x, run_list: ['recipe[apache2]', 'role[db]'], initial_attributes: {apache: {keepalive: false}}, install_type: omnibus, omnibus_url_retries: 2}
mcollective: {conf: {daemonize: 1, public-cert: x}}
ansible: {install_method: pip, package_name: ansible-core, pull: [{url: 'https://x', playbook_names: [a.yml]}]}
landscape: {client: {account_name: x, computer_title: y, tags: 'a,b'}}
rsyslog: {configs: ['*.* @@192.158.1.1', {content: x, filename: a.conf}], remotes: {maas: 192.168.1.1}, service_reload_command: [a, b]}
`,
  'red hat': `#cloud-config
rh_subscription: {username: joe@foo.bar, password: '1234abcd', auto_attach: true, service_level: self-support, add_pool: [a], enable_repo: [x], disable_repo: [y]}
spacewalk: {server: x, proxy: y, activation_key: z}
`,
  JSON: '#cloud-config\n{"hostname": "a", "runcmd": [["ls", "-l"], "x"], "users": ["default"]}\n',
  'text in every script': '#cloud-config\nfinal_message: "é ✓ 😀"\nwrite_files:\n  - path: /é\n    content: "\\u2713"\n',
  'an archive': `#cloud-config-archive
- type: foo/wark
  filename: bar
  content: |
    This is my payload
- "#!/bin/sh\\necho x"
- |
  #cloud-config
  runcmd: [ls]
- content: |
    hostname: x
  launch-index: 0
- type: text/cloud-config
  Merge-Type: list(append)
  content: |
    packages: [a]
- content: !!binary aGk=
`,
  'a patch': `#cloud-config-jsonp
[{"op": "add", "path": "/runcmd", "value": ["x"]}, {"op": "remove", "path": "/users/0"}, {"op": "move", "from": "/a", "path": "/b"}]
`,
};
