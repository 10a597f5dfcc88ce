package manifests

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Check returns what an API server accepts although it cannot work: selectors that match nothing, ports that no container
// has, Pods with more rights than they need, and references to objects that are not there.
func Check(objects []Object) []string {
	c := &checker{objects: objects, workloads: Workloads(objects)}
	for _, w := range c.workloads {
		c.workload(w)
	}
	for _, o := range objects {
		switch o := o.(type) {
		case *core.Service:
			c.service(o)
		case *networking.NetworkPolicy:
			c.network(o)
		case *policy.PodDisruptionBudget:
			c.matches(Name(o), o.Spec.Selector)
		case *autoscaling.HorizontalPodAutoscaler:
			c.autoscaler(o)
		}
	}
	c.disruption()
	return c.problems
}

type checker struct {
	objects   []Object
	workloads []Workload
	problems  []string
}

func (c *checker) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// matches reports a selector without a Pod, and names in it that no Pod has. It returns the workloads with matching Pods.
func (c *checker) matches(of string, selector *meta.LabelSelector) []Workload {
	s, err := meta.LabelSelectorAsSelector(selector)
	if err != nil {
		c.problem("%s: %v", of, err)
		return nil
	}
	found := selected(c.workloads, s)
	if len(found) == 0 {
		c.problem("%s selects no Pod: %s", of, s)
	}
	for _, e := range selector.MatchExpressions {
		for _, value := range e.Values {
			one := labels.SelectorFromSet(labels.Set{e.Key: value})
			if e.Operator == meta.LabelSelectorOpIn && len(selected(c.workloads, one)) == 0 {
				c.problem("%s: no Pod has %s=%s", of, e.Key, value)
			}
		}
	}
	return found
}

func (c *checker) service(s *core.Service) {
	found := c.matches(Name(s), &meta.LabelSelector{MatchLabels: s.Spec.Selector})
	for _, p := range s.Spec.Ports {
		for _, w := range found {
			if !hasPort(w, p.TargetPort, p.Protocol) {
				c.problem("%s: %s has no port %s", Name(s), Name(w), p.TargetPort.String())
			}
		}
	}
	if !slices.ContainsFunc(c.workloads, func(w Workload) bool {
		set, ok := w.Object.(*apps.StatefulSet)
		return ok && set.Spec.ServiceName == s.Name
	}) && s.Spec.ClusterIP == core.ClusterIPNone && !s.Spec.PublishNotReadyAddresses {
		c.problem("%s is headless, governs no StatefulSet and leaves out Pods that are not ready", Name(s))
	}
}

func (c *checker) network(n *networking.NetworkPolicy) {
	own := c.matches(Name(n), &n.Spec.PodSelector)
	for _, rule := range n.Spec.Ingress {
		c.peers(n, rule.From)
		c.ports(n, rule.Ports, own)
	}
	for _, rule := range n.Spec.Egress {
		c.ports(n, rule.Ports, c.peers(n, rule.To))
	}
	if len(n.Spec.Ingress) > 0 && !slices.Contains(n.Spec.PolicyTypes, networking.PolicyTypeIngress) ||
		len(n.Spec.Egress) > 0 && !slices.Contains(n.Spec.PolicyTypes, networking.PolicyTypeEgress) {
		c.problem("%s has rules of a type that is not in policyTypes", Name(n))
	}
}

// peers returns the workloads that the peers select in this namespace.
func (c *checker) peers(n *networking.NetworkPolicy, peers []networking.NetworkPolicyPeer) (found []Workload) {
	for _, p := range peers {
		if p.PodSelector != nil && p.NamespaceSelector == nil {
			found = append(found, c.matches(Name(n), p.PodSelector)...)
		}
	}
	return found
}

// ports reports a port that none of the workloads has.
func (c *checker) ports(n *networking.NetworkPolicy, ports []networking.NetworkPolicyPort, of []Workload) {
	for _, p := range ports {
		protocol := core.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if len(of) > 0 && !slices.ContainsFunc(of, func(w Workload) bool { return hasPort(w, *p.Port, protocol) }) {
			c.problem("%s: none of its Pods has the port %s", Name(n), p.Port)
		}
	}
}

func hasPort(w Workload, port intstr.IntOrString, protocol core.Protocol) bool {
	return slices.ContainsFunc(w.Template.Spec.Containers, func(container core.Container) bool {
		return containerHasPort(container, port, protocol)
	})
}

func containerHasPort(container core.Container, port intstr.IntOrString, protocol core.Protocol) bool {
	return slices.ContainsFunc(container.Ports, func(p core.ContainerPort) bool {
		same := p.Protocol == protocol || p.Protocol == "" && (protocol == core.ProtocolTCP || protocol == "")
		return same && (port.Type == intstr.String && p.Name == port.StrVal || port.Type == intstr.Int && p.ContainerPort == port.IntVal)
	})
}

func (c *checker) autoscaler(h *autoscaling.HorizontalPodAutoscaler) {
	to := h.Spec.ScaleTargetRef
	at := slices.IndexFunc(c.workloads, func(w Workload) bool {
		kind := w.GetObjectKind().GroupVersionKind()
		return w.GetName() == to.Name && kind.Kind == to.Kind && kind.GroupVersion().String() == to.APIVersion
	})
	if at < 0 {
		c.problem("%s scales %s %s, which is not there", Name(h), to.Kind, to.Name)
		return
	}
	if c.workloads[at].Replicas != 0 {
		c.problem("%s sets replicas, and so does %s: each apply would undo the scaling", Name(c.workloads[at]), Name(h))
	}
	for _, container := range c.workloads[at].Template.Spec.Containers {
		if container.Resources.Requests.Cpu().IsZero() {
			c.problem("%s: the container %s has no CPU request, to which the utilization of %s refers", Name(c.workloads[at]), container.Name, Name(h))
		}
	}
}

// disruption reports workloads of several Pods without a budget, and several budgets for a Pod, with which no eviction works.
func (c *checker) disruption() {
	for _, w := range c.workloads {
		budgets := 0
		for _, o := range c.objects {
			if b, ok := o.(*policy.PodDisruptionBudget); ok {
				s, _ := meta.LabelSelectorAsSelector(b.Spec.Selector)
				if len(selected([]Workload{w}, s)) > 0 {
					budgets++
				}
			}
		}
		switch {
		case budgets > 1:
			c.problem("%s has %d PodDisruptionBudgets", Name(w), budgets)
		case budgets == 0 && w.Replicas != 1 && w.Selector != nil:
			c.problem("%s has no PodDisruptionBudget", Name(w))
		}
	}
}

func (c *checker) workload(w Workload) {
	pod := w.Template.Spec
	if w.Selector != nil {
		s, err := meta.LabelSelectorAsSelector(w.Selector)
		if err != nil || !s.Matches(labels.Set(w.Template.Labels)) {
			c.problem("%s does not select its own Pods: %s", Name(w), s)
		}
	}
	for _, spread := range pod.TopologySpreadConstraints {
		if s, err := meta.LabelSelectorAsSelector(spread.LabelSelector); err != nil || !s.Matches(labels.Set(w.Template.Labels)) {
			c.problem("%s: the spread over %s does not count its own Pods: %s", Name(w), spread.TopologyKey, s)
		}
	}
	if set, ok := w.Object.(*apps.StatefulSet); ok && !slices.ContainsFunc(c.objects, func(o Object) bool {
		s, ok := o.(*core.Service)
		return ok && s.Name == set.Spec.ServiceName && s.Spec.ClusterIP == core.ClusterIPNone
	}) {
		c.problem("%s: there is no headless Service %s", Name(w), set.Spec.ServiceName)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		c.problem("%s: its Pods get a token for the API server", Name(w))
	}
	if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || s.RunAsGroup == nil {
		c.problem("%s: runAsNonRoot, runAsUser and runAsGroup must be set", Name(w))
	} else if s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		c.problem("%s: the seccomp profile is not RuntimeDefault", Name(w))
	}
	// Variables for Services have names such as READER_PORT, which the programs would take for settings.
	if pod.EnableServiceLinks == nil {
		c.problem("%s: enableServiceLinks must be set", Name(w))
	} else if *pod.EnableServiceLinks && !strings.Contains(fmt.Sprint(pod.Containers[0].Command), "address.sh") {
		c.problem("%s: enableServiceLinks is for address.sh only", Name(w))
	}
	if port, err := strconv.ParseInt(w.Template.Annotations["prometheus.io/port"], 10, 32); err == nil && !hasPort(w, intstr.FromInt32(int32(port)), core.ProtocolTCP) {
		c.problem("%s: its annotation names port %d, which it does not have", Name(w), port)
	}
	c.volumes(w)
	for _, container := range w.Containers() {
		c.container(w, container)
	}
}

func (c *checker) container(w Workload, container core.Container) {
	name := Name(w) + ", container " + container.Name
	s := container.SecurityContext
	if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
		s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") || len(s.Capabilities.Add) > 0 {
		c.problem("%s: the root file system must be read-only, without privilege escalation and capabilities", name)
	}
	if container.Resources.Limits.Memory().IsZero() || container.Resources.Requests.Memory().Cmp(*container.Resources.Limits.Memory()) != 0 {
		c.problem("%s: the memory limit must be set, and be the request", name)
	}
	if container.Resources.Requests.Cpu().IsZero() {
		c.problem("%s: no CPU request", name)
	}
	if _, tag, _ := strings.Cut(container.Image[strings.LastIndex(container.Image, "/")+1:], ":"); tag == "" || tag == "latest" {
		c.problem("%s: the image %s has no fixed tag", name, container.Image)
	}
	probes := map[string]*core.Probe{"startup": container.StartupProbe, "readiness": container.ReadinessProbe, "liveness": container.LivenessProbe}
	for which, p := range probes {
		if p == nil {
			continue
		}
		var port *intstr.IntOrString
		switch {
		case p.HTTPGet != nil:
			port = &p.HTTPGet.Port
		case p.TCPSocket != nil:
			port = &p.TCPSocket.Port
		}
		if port != nil && !containerHasPort(container, *port, core.ProtocolTCP) {
			c.problem("%s: the %s probe uses port %s, which it does not have", name, which, port)
		}
	}
	if w.Selector != nil && slices.ContainsFunc(w.Template.Spec.Containers, func(other core.Container) bool { return other.Name == container.Name }) &&
		(container.ReadinessProbe == nil || container.LivenessProbe == nil) {
		c.problem("%s: no readiness or liveness probe", name)
	}
	if grace := w.Template.Spec.TerminationGracePeriodSeconds; container.Lifecycle != nil && container.Lifecycle.PreStop != nil {
		if sleep := container.Lifecycle.PreStop.Sleep; sleep == nil || grace == nil || *grace <= sleep.Seconds {
			c.problem("%s: preStop must be a sleep shorter than terminationGracePeriodSeconds", name)
		}
	}
	seen := map[string]bool{}
	for _, e := range container.Env {
		if seen[e.Name] {
			c.problem("%s sets %s twice", name, e.Name)
		}
		seen[e.Name] = true
	}
}

// volumes reports mounts without a volume, volumes without a mount, and files that a mounted ConfigMap does not have.
func (c *checker) volumes(w Workload) {
	volumes := map[string]*core.Volume{}
	for i, v := range w.Template.Spec.Volumes {
		volumes[v.Name] = &w.Template.Spec.Volumes[i]
	}
	for _, claim := range w.Claims {
		volumes[claim] = &core.Volume{Name: claim}
	}
	used := map[string]bool{}
	for _, container := range w.Containers() {
		for _, m := range container.VolumeMounts {
			used[m.Name] = true
			v := volumes[m.Name]
			if v == nil {
				c.problem("%s: there is no volume %s", Name(w), m.Name)
				continue
			}
			if v.ConfigMap == nil || m.SubPath == "" {
				continue
			}
			for _, o := range c.objects {
				if files, ok := o.(*core.ConfigMap); ok && files.Name == v.ConfigMap.Name {
					if _, ok := files.Data[m.SubPath]; !ok {
						c.problem("%s: the ConfigMap %s has no file %s", Name(w), files.Name, m.SubPath)
					}
				}
			}
		}
	}
	for name := range volumes {
		if !used[name] {
			c.problem("%s: the volume %s is not mounted", Name(w), name)
		}
	}
}
