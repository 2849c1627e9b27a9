/**
 * Manifests and what is found in them: kube.test.ts holds the findings to it, kube.rig.ts sends the same to a real API server, which must refuse
 * what has an error and take the rest.
 */
export interface Manifest {
  what: string;
  text: string;
  /** `code line:column`, a warning with `?` before. */
  findings: readonly string[];
  /** Why the server of the rig (1.20) has another opinion, or none: a newer one's is meant. */
  notForRig?: string;
}

const pod = (spec: string, metadata = '{name: a}') => `apiVersion: v1\nkind: Pod\nmetadata: ${metadata}\nspec:\n${spec}`;
const container = (more: string) => pod(`  containers:\n  - name: web\n    image: nginx\n${more}`);
const configMap = (more: string) => `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n${more}`;
const workload = (kind: string, spec: string, apiVersion = 'apps/v1') =>
  `apiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: {name: a}\nspec:\n${spec}`;
const TEMPLATE = '  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: b, image: c}]}}\n';
const service = (spec: string, name = 'a') => `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}}\nspec: ${spec}\n`;

const OLDER = 'the 1.20 of the rig does not have it';
const FOREIGN = 'there is no such definition in the rig';

export const RIGHT: Manifest[] = [
  {
    what: 'a Deployment with all that usually goes with it',
    text: `apiVersion: apps/v1
kind: Deployment
metadata:
  name: frontend
  namespace: default
  labels: {app: guestbook, "app.kubernetes.io/version": "1.10"}
  annotations:
    kubernetes.io/change-cause: "first"
    Example.org/Note: ""
spec:
  replicas: 3
  revisionHistoryLimit: 0
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 25%, maxSurge: 1}
  selector:
    matchLabels: {app: guestbook}
    matchExpressions:
    - {key: tier, operator: In, values: [frontend, backend]}
    - {key: canary, operator: DoesNotExist}
  template:
    metadata:
      creationTimestamp: null
      labels: {app: guestbook, tier: frontend}
    spec:
      serviceAccountName: default
      terminationGracePeriodSeconds: 30
      securityContext: {runAsUser: 1000, fsGroup: 2000}
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            podAffinityTerm:
              labelSelector: {matchLabels: {app: guestbook}}
              topologyKey: kubernetes.io/hostname
      tolerations: [{key: node-role.kubernetes.io/master, operator: Exists, effect: NoSchedule}]
      initContainers:
      - name: prepare
        image: busybox:1.36
        command: [sh, -c, "until nslookup db; do sleep 2; done"]
        volumeMounts: [{name: data, mountPath: /data}]
      containers:
      - name: php-redis
        image: gcr.io/google-samples/gb-frontend:v4
        imagePullPolicy: IfNotPresent
        env:
        - {name: GET_HOSTS_FROM, value: dns}
        - name: NODE
          valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
        - name: PASSWORD
          valueFrom: {secretKeyRef: {name: db, key: password, optional: true}}
        envFrom: [{configMapRef: {name: settings}}]
        ports:
        - {name: http, containerPort: 80, protocol: TCP}
        - {name: metrics, containerPort: 9100}
        livenessProbe:
          httpGet: {path: /healthz, port: http, scheme: HTTP}
          initialDelaySeconds: 3
        readinessProbe:
          tcpSocket: {port: 80}
        resources:
          requests: {cpu: 100m, memory: 100Mi}
          limits: {cpu: 1.5, memory: 1e9, ephemeral-storage: 2G}
        volumeMounts:
        - {name: data, mountPath: /data}
        - {name: config, mountPath: /etc/app, readOnly: true}
        - {name: config, mountPath: /etc/app.conf, subPath: app.conf}
      volumes:
      - name: data
        emptyDir: {}
      - name: config
        configMap: {name: settings, defaultMode: 0644, items: [{key: app.conf, path: app.conf, mode: 0o400}]}
      - name: scratch
      - name: all
        projected:
          sources:
          - secret: {name: db}
          - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
`,
    findings: [],
  },
  {
    what: 'RBAC, with names that others may not have',
    text: `apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
imagePullSecrets: [{name: registry}]
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:robot:Reader"}
rules:
- apiGroups: [""]
  resources: [pods, pods/log]
  verbs: ["*"]
- nonResourceURLs: [/metrics]
  verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:robot:Reader"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:robot:Reader"}
subjects: [{kind: ServiceAccount, name: robot, namespace: default}]
`,
    findings: [],
  },
  {
    what: 'Ingress, NetworkPolicy, IngressClass',
    text: `apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}
spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web.example.org}
spec:
  ingressClassName: nginx
  tls: [{hosts: [web.example.org], secretName: web-tls}]
  rules:
  - host: web.example.org
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /x, pathType: Exact, backend: {service: {name: web, port: {name: http}}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{protocol: UDP, port: 53}, {port: dns}]}]
`,
    findings: [],
  },
  {
    what: 'volumes, claims and classes',
    text: `apiVersion: v1
kind: PersistentVolume
metadata: {name: task-pv}
spec:
  storageClassName: manual
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  hostPath: {path: /mnt/data, type: ""}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: task-pvc}
spec:
  storageClassName: ""
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 3Gi}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
parameters: {type: "gp2"}
`,
    findings: [],
  },
  {
    what: 'a StatefulSet whose mounts are claims, its headless Service and its quotas',
    text: `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: db, image: postgres, volumeMounts: [{name: data, mountPath: /var/lib}], ports: [{containerPort: 5432}]}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, default: {cpu: 1, memory: 512Mi}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec: {hard: {pods: 10, requests.cpu: "4"}, scopes: [NotTerminating]}
`,
    findings: [],
  },
  {
    what: 'a CronJob, an autoscaler, a disruption budget',
    text: `apiVersion: batch/v1
kind: CronJob
metadata: {name: hello}
spec:
  schedule: "*/5 * * * *"
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: OnFailure
          containers: [{name: hello, image: busybox, args: [/bin/sh, -c, date]}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: php-apache}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: php-apache}
  minReplicas: 1
  maxReplicas: 10
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 300, policies: [{type: Percent, value: 100, periodSeconds: 15}]}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: zk}
spec: {minAvailable: 50%, selector: {matchLabels: {app: zookeeper}}}
`,
    findings: [],
    notForRig: OLDER,
  },
  {
    what: 'a Job that ends',
    text: workload(
      'Job',
      '  backoffLimit: 4\n  template: {spec: {restartPolicy: Never, containers: [{name: pi, image: perl}]}}\n',
      'batch/v1',
    ),
    findings: [],
  },
  {
    what: 'a DaemonSet with the host to itself',
    text: `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {name: agent}}
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}
  template:
    metadata: {labels: {name: agent}}
    spec:
      hostNetwork: yes
      dnsPolicy: ClusterFirstWithHostNet
      containers:
      - name: agent
        image: agent
        securityContext: {capabilities: {add: [NET_ADMIN]}}
        ports: [{containerPort: 9100, hostPort: 9100}]
        volumeMounts: [{name: root, mountPath: /host, mountPropagation: HostToContainer}]
      volumes: [{name: root, hostPath: {path: /, type: Directory}}]
`,
    findings: [],
  },
  {
    what: 'ReplicationController, with and without a selector',
    text: `${workload('ReplicationController', `  selector: {app: a}\n${TEMPLATE}`, 'v1')}---\napiVersion: v1\nkind: ReplicationController\nmetadata: {name: b}\nspec:\n${TEMPLATE}`,
    findings: [],
  },
  {
    what: 'a ConfigMap with bytes, and a Secret with text',
    text: `apiVersion: v1
kind: ConfigMap
metadata: {name: a}
immutable: false
data: {app.conf: "a: b", _x-y.Z: "", 5: "five"}
binaryData: {logo.png: iVBORw0KGgo=}
---
apiVersion: v1
kind: Secret
metadata: {name: a}
type: Opaque
data:
  user: YWRtaW4=
  cert: |
    LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0t
    LS0tCg==
stringData: {password: "1234"}
`,
    findings: [],
  },
  {
    what: 'strings that PyYAML takes for numbers and dates, and Kubernetes does not',
    text: configMap('data: {a: 12:30:45, b: 2024-01-01, c: 0o8, d: 1_2:30, e: 2024-01-01T00:00:00Z}\n'),
    findings: [],
  },
  {
    what: 'numbers that PyYAML takes for strings, and Kubernetes does not',
    text: container('    ports: [{containerPort: 8e1}, {containerPort: 0o120}, {containerPort: 81.0}]\n    tty: n\n'),
    findings: [],
  },
  { what: 'a tag that makes a string', text: configMap('data: {a: !!str 5, b: !!str yes}\n'), findings: [] },
  {
    what: 'fields that are null',
    text: container('    command:\n    args: null\n    resources: {limits: ~}\n  volumes:\n  nodeSelector: {}\n'),
    findings: [],
  },
  {
    what: 'anchors, merge keys and folded texts',
    text: `apiVersion: v1
kind: Pod
metadata: &meta {name: a, labels: &labels {app: a}}
spec:
  containers:
  - &one
    name: one
    image: busybox
    env: &env [{name: A, value: "1"}]
  - <<: *one
    name: two
    env: *env
    args:
    - >-
      one
      two
  nodeSelector: *labels
`,
    findings: [],
  },
  { what: 'CRLF', text: container('    ports: [{containerPort: 80}]\n').replaceAll('\n', '\r\n'), findings: [] },
  {
    what: 'JSON, indented with tabs',
    text: '{\n\t"apiVersion": "v1",\n\t"kind": "Pod",\n\t"metadata": {"name": "a"},\n\t"spec": {"containers": [{"name": "b", "image": "c", "ports": [{"containerPort": 80}]}]}\n}\n',
    findings: [],
  },
  {
    what: 'a List, a PodList and an empty document',
    text: `apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: one}
- apiVersion: v1
  kind: Service
  metadata: {name: two}
  spec: {ports: [{port: 80, targetPort: http, name: http}, {port: 443, name: https}]}
---
---
apiVersion: v1
kind: PodList
items:
- {metadata: {name: b}, spec: {containers: [{name: b, image: c}]}}
`,
    findings: [],
  },
  {
    what: 'a Service of each type',
    text: `${service('{type: ExternalName, externalName: db.example.org}')}---\n${service('{type: NodePort, sessionAffinity: ClientIP, ports: [{port: 80, nodePort: 30080, targetPort: 8080}]}', 'b')}---\n${service('{type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}', 'c')}`,
    findings: [],
  },
  {
    what: 'a definition of a kind, free parts in it',
    text: `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  names: {kind: Widget, plural: widgets, shortNames: [wd]}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-preserve-unknown-fields: true
            required: [size]
            properties:
              size: {type: integer, minimum: 0.5, default: 3}
              port: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}
              list: {type: array, items: {type: string, enum: [a, b]}}
              map: {type: object, additionalProperties: {type: string}}
`,
    findings: [],
  },
  {
    what: 'a custom resource beside its definition',
    text: `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  names: {kind: Gadget, plural: gadgets}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: example.com/v1
kind: Gadget
metadata: {name: a}
spec: {anything: [goes, 1, true], 5: x}
`,
    findings: [],
    notForRig: 'a dry run does not keep the definition',
  },
  {
    what: 'a chart for k3s',
    text: 'apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: traefik, namespace: kube-system}\nspec: {chart: traefik, set: {a: 5}}\n',
    findings: [],
    notForRig: FOREIGN,
  },
  {
    what: 'a certificate',
    text: 'apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: web}\nspec: {secretName: web-tls, dnsNames: [web.example.org], issuerRef: {name: le, kind: ClusterIssuer}}\n',
    findings: ['?unknown_kind 2:7'],
    notForRig: FOREIGN,
  },
  {
    what: 'a namesake of a kind in a group of somebody else',
    text: 'apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: hello}\nspec: {template: {spec: {containers: [{image: a}]}}}\n',
    findings: ['?unknown_kind 2:7'],
    notForRig: FOREIGN,
  },
  {
    what: 'a webhook',
    text: `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: pod-policy.example.com}
webhooks:
- name: pod-policy.example.com
  rules: [{apiGroups: [""], apiVersions: [v1], operations: ["*"], resources: [pods], scope: "*"}]
  clientConfig: {service: {namespace: default, name: policy, path: /v, port: 443}, caBundle: Q2c9PQ==}
  admissionReviewVersions: [v1]
  sideEffects: None
  timeoutSeconds: 5
  failurePolicy: Fail
  namespaceSelector: {matchExpressions: [{key: runlevel, operator: NotIn, values: ["0"]}]}
`,
    findings: [],
  },
  {
    what: 'what kubectl get prints of an object',
    text: `apiVersion: v1
kind: ConfigMap
metadata:
  name: printed
  namespace: default
  creationTimestamp: "2024-01-01T00:00:00Z"
  managedFields: [{manager: kubectl, operation: Apply, apiVersion: v1, time: "2024-01-01T00:00:00Z", fieldsType: FieldsV1, fieldsV1: {"f:data": {}}}]
data: {a: b}
---
apiVersion: v1
kind: Namespace
metadata: {name: printed}
spec: {finalizers: [kubernetes]}
status: {phase: Active}
`,
    findings: [],
  },
  {
    what: 'a version that is gone, on a cluster that has it',
    text: workload(
      'CronJob',
      '  schedule: "@daily"\n  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}}\n',
      'batch/v1beta1',
    ),
    findings: ['?removed_version 2:7'],
  },
  {
    what: 'fields of newer versions',
    text: container(
      '    restartPolicyRules: []\n    resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}]\n  hostUsers: false\n  os: {name: linux}\n',
    ),
    findings: [],
    notForRig: OLDER,
  },
];

export const WRONG: Manifest[] = [
  {
    what: 'a misspelt field, which was a required one',
    text: pod('  containrs: [{name: a, image: b}]\n'),
    findings: ['unknown_field 5:3'],
  },
  {
    what: 'a field at the wrong place',
    text: pod('  image: nginx\n  containers: [{name: a, image: b}]\n'),
    findings: ['unknown_field 5:3'],
  },
  {
    what: 'a misspelt field deep inside',
    text: container('    livenessProbe: {httpGet: {path: /, prot: 80}}\n'),
    findings: ['unknown_field 8:40'],
  },
  { what: 'a field in capitals', text: container('    imagepullpolicy: Always\n'), findings: ['unknown_field 8:5'] },
  {
    what: 'a field beside the anchor that holds it',
    text: `x-common: &x {name: a, image: b}\n${pod('  containers: [*x]\n')}`,
    findings: ['unknown_field 1:1'],
  },
  { what: 'no containers', text: pod('  restartPolicy: Never\n'), findings: ['missing_field 5:3'] },
  { what: 'an empty list of containers', text: pod('  containers: []\n'), findings: ['missing_field 5:15'] },
  { what: 'no spec', text: 'apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n', findings: ['missing_field 1:1'] },
  { what: 'no image', text: pod('  containers: [{name: a}]\n'), findings: ['missing_field 5:16'] },
  {
    what: 'a field that is null and must not be',
    text: pod('  containers:\n  - name:\n    image: a\n'),
    findings: ['missing_field 6:5'],
  },
  { what: 'a number for a string', text: container('    env: [{name: PORT, value: 5432}]\n'), findings: ['wrong_type 8:31'] },
  {
    what: 'a number for a string that PyYAML takes for a string',
    text: container('    env: [{name: A, value: 1e3}, {name: B, value: 08}, {name: C, value: y}]\n'),
    findings: ['wrong_type 8:28', 'wrong_type 8:51', 'wrong_type 8:73'],
  },
  { what: 'yes for a string', text: configMap('data: {a: yes}\n'), findings: ['wrong_type 4:11'] },
  {
    what: 'an annotation that is true',
    text: 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  annotations:\n    kubernetes.io/enabled: true\n',
    findings: ['wrong_type 6:28'],
  },
  {
    what: 'a label that is a number, on a kind of somebody else',
    text: 'apiVersion: example.org/v1\nkind: Thing\nmetadata: {name: a, labels: {version: 1.10}}\n',
    findings: ['?unknown_kind 2:7', 'wrong_type 3:39'],
  },
  {
    what: 'true in quotes',
    text: pod('  hostNetwork: "true"\n  containers: [{name: a, image: b}]\n'),
    findings: ['wrong_type 5:16'],
  },
  { what: 'a port in quotes', text: container('    ports: [{containerPort: "80"}]\n'), findings: ['wrong_type 8:29'] },
  { what: 'a port of 80.5', text: container('    ports: [{containerPort: 80.5}]\n'), findings: ['wrong_type 8:29'] },
  { what: 'a port past the last', text: container('    ports: [{containerPort: 80000}]\n'), findings: ['out_of_range 8:29'] },
  { what: 'a command that is a string', text: container('    command: sleep 10\n'), findings: ['wrong_type 8:14'] },
  {
    what: 'containers without their dashes',
    text: pod('  containers:\n    name: a\n    image: b\n'),
    findings: ['wrong_type 6:5'],
  },
  {
    what: 'a spec that is a text',
    text: 'apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: none\n',
    findings: ['wrong_type 4:7'],
  },
  {
    what: 'no quantity',
    text: container('    resources: {limits: {memory: 128MB, cpu: 1 core}}\n'),
    findings: ['bad_quantity 8:34', 'bad_quantity 8:46'],
  },
  {
    what: 'a Secret that is not base64',
    text: 'apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {password: hunter2}\n',
    findings: ['not_base64 4:18'],
  },
  {
    what: 'a policy that there is not',
    text: pod(
      '  restartPolicy: Sometimes\n  containers: [{name: a, image: b, imagePullPolicy: always, ports: [{containerPort: 1, protocol: tcp}]}]\n',
    ),
    findings: ['unsupported_value 5:18', 'unsupported_value 6:53', 'unsupported_value 6:98'],
  },
  {
    what: 'a type of Service that there is not',
    text: service('{type: Loadbalancer, ports: [{port: 80}]}'),
    findings: ['unsupported_value 4:14'],
  },
  { what: 'no name', text: 'apiVersion: v1\nkind: ConfigMap\nmetadata: {labels: {a: b}}\n', findings: ['missing_name 3:11'] },
  { what: 'no metadata', text: 'apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n', findings: ['missing_name 1:1'] },
  {
    what: 'names in capitals and underscores',
    text: pod('  containers: [{name: My_App, image: b}]\n', '{name: Web_1}'),
    findings: ['bad_object_name 3:18', 'bad_object_name 5:23'],
  },
  {
    what: 'a Service and a Namespace with a dot',
    text: `${service('{ports: [{port: 80}]}', 'a.b')}---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}\n`,
    findings: ['bad_object_name 3:18', 'bad_object_name 8:18'],
  },
  {
    what: 'a namespace that is none',
    text: pod('  containers: [{name: a, image: b}]\n', '{name: a, namespace: Default}'),
    findings: ['bad_object_name 3:32'],
  },
  {
    what: 'a definition under another name',
    text: 'apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widget.example.com}\nspec:\n  group: example.com\n  names: {kind: Widget, plural: widgets}\n  scope: Namespaced\n  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]\n',
    findings: ['bad_object_name 3:18'],
  },
  {
    what: 'labels that are none',
    text: pod(
      '  containers: [{name: a, image: b}]\n',
      '{name: a, labels: {"a/b/c": x, app: "my app", ok: ""}, annotations: {"a b": x}}',
    ),
    findings: ['bad_label 3:30', 'bad_label 3:47', 'bad_label 3:80'],
  },
  {
    what: 'a key that is no file name',
    text: configMap('data: {my key: a, etc/app: b}\n'),
    findings: ['bad_data_key 4:8', 'bad_data_key 4:19'],
  },
  {
    what: 'two containers, volumes and ports of one name',
    text: `apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  initContainers: [{name: a, image: b}]
  containers:
  - name: a
    image: b
    ports: [{name: http, containerPort: 80}, {name: http, containerPort: 81}]
  volumes: [{name: x, emptyDir: {}}, {name: x, emptyDir: {}}]
`,
    findings: ['duplicate_name 7:11', 'duplicate_name 9:53', 'duplicate_name 10:45'],
  },
  {
    what: 'a volume of two sources',
    text: container('  volumes: [{name: x, emptyDir: {}, hostPath: {path: /}}]\n'),
    findings: ['too_many_fields 8:13'],
  },
  {
    what: 'a name of a port that is too long',
    text: container('    ports: [{name: my-very-long-port-name, containerPort: 80}]\n'),
    findings: ['bad_port_name 8:20'],
  },
  {
    what: 'a mount of no volume',
    text: container('    volumeMounts: [{name: dta, mountPath: /data}]\n  volumes: [{name: data, emptyDir: {}}]\n'),
    findings: ['unknown_volume 8:27'],
  },
  {
    what: 'two mounts at one place',
    text: container(
      '    volumeMounts: [{name: data, mountPath: /data}, {name: data, mountPath: /data}]\n  volumes: [{name: data, emptyDir: {}}]\n',
    ),
    findings: ['duplicate_name 8:76'],
  },
  {
    what: 'a selector that does not match',
    text: workload('Deployment', `  selector: {matchLabels: {app: b}}\n${TEMPLATE}`),
    findings: ['selector_mismatch 5:13'],
  },
  {
    what: 'a selector whose expressions do not match',
    text: workload('DaemonSet', `  selector: {matchExpressions: [{key: app, operator: NotIn, values: [a]}]}\n${TEMPLATE}`),
    findings: ['selector_mismatch 5:13'],
  },
  {
    what: 'a selector without matchLabels',
    text: workload('ReplicaSet', `  selector: {app: a}\n${TEMPLATE}`),
    findings: ['unknown_field 5:14'],
  },
  {
    what: 'an empty selector',
    text: workload('StatefulSet', `  serviceName: a\n  selector: {}\n${TEMPLATE}`),
    findings: ['selector_mismatch 6:13'],
  },
  { what: 'no selector', text: workload('Deployment', TEMPLATE), findings: ['missing_field 5:3'] },
  {
    what: 'a ReplicationController that selects others',
    text: workload('ReplicationController', `  selector: {app: b}\n${TEMPLATE}`, 'v1'),
    findings: ['selector_mismatch 5:13'],
  },
  {
    what: 'an operator that there is not',
    text: workload(
      'Deployment',
      `  selector: {matchLabels: {app: a}, matchExpressions: [{key: app, operator: Equals, values: [a]}]}\n${TEMPLATE}`,
    ),
    findings: ['unsupported_value 5:77'],
  },
  {
    what: 'an In without values',
    text: workload(
      'Deployment',
      `  selector: {matchLabels: {app: a}, matchExpressions: [{key: app, operator: In}]}\n${TEMPLATE}`,
    ),
    findings: ['missing_field 5:56'],
  },
  {
    what: 'a Job that runs for ever',
    text: workload('Job', '  template: {spec: {containers: [{name: a, image: b}]}}\n', 'batch/v1'),
    findings: ['missing_field 5:20'],
  },
  {
    what: 'a Deployment that ends',
    text: workload(
      'Deployment',
      '  selector: {matchLabels: {app: a}}\n  template: {metadata: {labels: {app: a}}, spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}\n',
    ),
    findings: ['unsupported_value 6:66'],
  },
  {
    what: 'a Service without ports, and one whose ports have no names',
    text: `${service('{selector: {a: b}}')}---\n${service('{ports: [{port: 80}, {port: 443}]}', 'b')}`,
    findings: ['missing_field 4:7', 'missing_field 9:16', 'missing_field 9:28'],
  },
  {
    what: 'a role without verbs',
    text: 'apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: a}\nrules: [{apiGroups: [""], resources: [pods]}]\n',
    findings: ['missing_field 4:9'],
  },
  {
    what: 'a kind that is misspelt, in the core',
    text: 'apiVersion: v1\nkind: Sevice\nmetadata: {name: a}\n',
    findings: ['unknown_kind 2:7'],
  },
  {
    what: 'a kind of another group, in the core',
    text: 'apiVersion: v1\nkind: Deployment\nmetadata: {name: a}\n',
    findings: ['unknown_kind 2:7'],
  },
  {
    what: 'an item of a list',
    text: `apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, dta: {}}\n- {apiVersion: v1, kind: Pod, metadata: {name: A}}\n- hello\n`,
    findings: ['unknown_field 4:58', 'missing_field 5:3', 'bad_object_name 5:48', 'not_a_manifest 6:3'],
  },
  { what: 'a later document', text: `${configMap('')}---\n${configMap('daat: {}\n')}`, findings: ['unknown_field 8:1'] },
  {
    what: 'in JSON',
    text: '{\n\t"apiVersion": "v1",\n\t"kind": "Pod",\n\t"metadata": {"name": "a"},\n\t"spec": {"containers": [{"name": "b", "image": 5}]}\n}\n',
    findings: ['wrong_type 5:49'],
  },
  { what: 'an empty name', text: container('    env: [{name: "", value: a}]\n'), findings: ['missing_field 8:18'] },
  {
    what: 'a port in quotes, where a name will do',
    text: service('{ports: [{port: 80, targetPort: "8080"}]}'),
    findings: ['wrong_type 4:39'],
  },
  {
    what: 'a node port without its type',
    text: service('{ports: [{port: 80, nodePort: 30080}]}'),
    findings: ['unsupported_value 4:37'],
  },
  {
    what: 'more asked for than there may be',
    text: container('    resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 500m, memory: 2G}}\n'),
    findings: ['request_over_limit 8:33'],
  },
  {
    what: 'a secret without its name',
    text: container('  volumes: [{name: a, secret: {name: db}}]\n'),
    findings: ['missing_field 8:31', 'unknown_field 8:32'],
  },
  {
    what: 'a claim for nothing',
    text: 'apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a}\nspec: {storageClassName: fast}\n',
    findings: ['missing_field 4:7', 'missing_field 4:7'],
  },
  {
    what: 'a volume of no size',
    text: 'apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: a}\nspec: {accessModes: [ReadWriteOnce], hostPath: {path: /}}\n',
    findings: ['missing_field 4:7'],
  },
  {
    what: 'a share that is none',
    text: workload(
      'Deployment',
      `  strategy: {rollingUpdate: {maxUnavailable: "1"}}\n  selector: {matchLabels: {app: a}}\n${TEMPLATE}`,
    ),
    findings: ['unsupported_value 5:46'],
  },
  {
    what: 'a role for no group',
    text: 'apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: a}\nrules: [{resources: [pods], verbs: [get]}]\n',
    findings: ['missing_field 4:9'],
  },
  {
    what: 'a service account of nowhere',
    text: 'apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: a}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: a}\nsubjects: [{kind: ServiceAccount, name: a}]\n',
    findings: ['missing_field 5:12'],
  },
  {
    what: 'an Ingress without a slash, and one of nothing',
    text: 'apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\nspec: {rules: [{http: {paths: [{path: x, pathType: Prefix, backend: {service: {name: a, port: {number: 80}}}}]}}]}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: b}\nspec: {}\n',
    findings: ['unsupported_value 4:39', 'missing_field 9:7'],
  },
  {
    what: 'a schedule of six fields',
    text: workload(
      'CronJob',
      '  schedule: "0 */5 * * * *"\n  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}}\n',
      'batch/v1beta1',
    ),
    findings: ['?removed_version 2:7', 'unsupported_value 5:13'],
  },
  {
    what: 'a name of a CronJob that is too long',
    text: workload(
      'CronJob',
      '  schedule: "@daily"\n  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}}\n',
      'batch/v1beta1',
    ).replace('name: a', `name: ${'a'.repeat(53)}`),
    findings: ['?removed_version 2:7', 'bad_object_name 3:18'],
  },
  {
    what: 'a key twice, which kubectl takes',
    text: configMap('data: {a: b}\ndata: {a: c}\n'),
    findings: ['?duplicate_key 5:1'],
  },
  {
    what: 'a name that is to be generated, which kubectl apply does not',
    text: 'apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a-}\n',
    findings: ['?generate_name 3:26'],
    notForRig: 'kubectl apply refuses it, kubectl create does not',
  },
  {
    what: 'a Service that begins with a digit',
    text: service('{ports: [{port: 80}]}', '9a'),
    findings: ['?bad_object_name 3:18'],
    notForRig: 'the newest Kubernetes take it',
  },
  {
    what: 'a kind that is misspelt, elsewhere',
    text: 'apiVersion: apps/v1\nkind: Deplyment\nmetadata: {name: a}\n',
    findings: ['?unknown_kind 2:7'],
    notForRig: 'of a later version nobody can know',
  },
  {
    what: 'a version that there never was',
    text: 'apiVersion: app/v1\nkind: Deployment\nmetadata: {name: a}\n',
    findings: ['?unknown_kind 2:7'],
    notForRig: 'of a later version nobody can know',
  },
  {
    what: 'a version that is gone, and a fault in it',
    text: workload('Deployment', `${TEMPLATE}  replica: 3\n`, 'extensions/v1beta1'),
    findings: ['?removed_version 2:7', 'unknown_field 6:3'],
  },
];
