package manifests

import (
	"fmt"
	"slices"

	core "k8s.io/api/core/v1"
)

// Missing returns the ConfigMaps, Secrets and claims that Pods refer to and that are not among the objects: "Secret
// redis-passwords: REDIS_WRITER_PASSWORD" for a key, "Secret redis-tls" for all of it. Each occurs once.
func Missing(objects []Object) []string {
	have := map[string]bool{}
	for _, o := range objects {
		switch o := o.(type) {
		case *core.ConfigMap:
			add(have, "ConfigMap "+o.Name, o.Data)
		case *core.Secret:
			add(have, "Secret "+o.Name, o.Data)
		case *core.PersistentVolumeClaim:
			have["PersistentVolumeClaim "+o.Name] = true
		}
	}
	var missing []string
	need := func(name, key string) {
		if key != "" {
			name = fmt.Sprintf("%s: %s", name, key)
		}
		if !have[name] {
			missing = append(missing, name)
		}
	}
	for _, w := range Workloads(objects) {
		for _, container := range w.Containers() {
			for _, from := range container.EnvFrom {
				if from.ConfigMapRef != nil {
					need("ConfigMap "+from.ConfigMapRef.Name, "")
				}
				if from.SecretRef != nil {
					need("Secret "+from.SecretRef.Name, "")
				}
			}
			for _, e := range container.Env {
				if e.ValueFrom == nil {
					continue
				}
				if ref := e.ValueFrom.SecretKeyRef; ref != nil {
					need("Secret "+ref.Name, ref.Key)
				}
				if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil {
					need("ConfigMap "+ref.Name, ref.Key)
				}
			}
		}
		for _, v := range w.Template.Spec.Volumes {
			switch {
			case v.ConfigMap != nil:
				need("ConfigMap "+v.ConfigMap.Name, "")
			case v.Secret != nil:
				need("Secret "+v.Secret.SecretName, "")
			case v.PersistentVolumeClaim != nil:
				need("PersistentVolumeClaim "+v.PersistentVolumeClaim.ClaimName, "")
			}
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

func add[V any](have map[string]bool, name string, data map[string]V) {
	have[name] = true
	for key := range data {
		have[name+": "+key] = true
	}
}
