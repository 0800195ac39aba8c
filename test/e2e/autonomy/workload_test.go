package autonomy

// workloadPods is how many pods workload makes.
const workloadPods = 8

// workload is one of each kind of pod, all on the agent.
const workload = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {kubernetes.io/hostname: a1}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: kedge.local/busybox:1
        command: [sh, -c, "mkdir -p /www; echo page >/www/index.html; exec httpd -f -p 8080 -h /www"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agentd}
spec:
  selector: {matchLabels: {app: agentd}}
  template:
    metadata: {labels: {app: agentd}}
    spec:
      nodeSelector: {kubernetes.io/hostname: a1}
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: kedge.local/busybox:1, command: [sleep, "100000"]}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: hush}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: material}
spec:
  replicas: 2
  selector: {matchLabels: {app: material}}
  template:
    metadata: {labels: {app: material}}
    spec:
      nodeSelector: {kubernetes.io/hostname: a1}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: kedge.local/busybox:1
        command: [sleep, "100000"]
        env: [{name: WORD, valueFrom: {secretKeyRef: {name: password, key: word}}}]
        volumeMounts: [{name: config, mountPath: /config}, {name: secret, mountPath: /secret}]
      volumes:
      - {name: config, configMap: {name: settings}}
      - {name: secret, secret: {secretName: password}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reader}
spec:
  selector: {matchLabels: {app: reader}}
  template:
    metadata: {labels: {app: reader}}
    spec:
      serviceAccountName: reader
      nodeSelector: {kubernetes.io/hostname: a1}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: kedge.local/busybox:1
        command: [sleep, "100000"]
        volumeMounts: [{name: kedge, mountPath: /opt/kedge/bin, readOnly: true}]
      volumes: [{name: kedge, hostPath: {path: /opt/kedge/bin}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: client}
spec:
  serviceName: client
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      nodeSelector: {kubernetes.io/hostname: a1}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: kedge.local/busybox:1
        command: [sh, -c, "echo hello; exec sleep 100000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: host}
spec:
  selector: {matchLabels: {app: host}}
  template:
    metadata: {labels: {app: host}}
    spec:
      hostNetwork: true
      nodeSelector: {kubernetes.io/hostname: a1}
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: kedge.local/busybox:1, command: [sleep, "100000"]}]
`
