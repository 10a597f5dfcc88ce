package manifests

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// peer is one end of a connection.
type peer struct {
	name           string
	namespace, pod labels.Set
	ports          []core.ContainerPort
	policies       []*networking.NetworkPolicy // of its namespace; none allow everything
}

// others are peers in other namespaces and, as "outside", any other address.
var others = []peer{
	{name: "kube-system", namespace: namespace("kube-system"), ports: []core.ContainerPort{
		{ContainerPort: 53, Protocol: core.ProtocolUDP}, {ContainerPort: 53, Protocol: core.ProtocolTCP}, {ContainerPort: 443},
	}},
	{name: "monitoring", namespace: namespace("monitoring")},
	{name: "outside", ports: []core.ContainerPort{{ContainerPort: 443}, {ContainerPort: 6379}, {ContainerPort: 26379}}},
}

func namespace(name string) labels.Set { return labels.Set{core.LabelMetadataName: name} }

// allowed returns the connections that the NetworkPolicies allow between the Pods, and between them and others, such as
// "writer > redis:6379", in order.
func allowed(objects []Object) (all []string) {
	var policies []*networking.NetworkPolicy
	for _, o := range objects {
		if n, ok := o.(*networking.NetworkPolicy); ok {
			policies = append(policies, n)
		}
	}
	peers := slices.Clone(others)
	for _, w := range Workloads(objects) {
		p := peer{name: w.GetName(), namespace: namespace(w.GetNamespace()), pod: w.Template.Labels, policies: policies}
		for _, c := range w.Template.Spec.Containers {
			p.ports = append(p.ports, c.Ports...)
		}
		peers = append(peers, p)
	}
	for _, client := range peers {
		for _, server := range peers {
			if client.policies == nil && server.policies == nil {
				continue // not ours
			}
			for _, port := range server.ports {
				if client.allows(networking.PolicyTypeEgress, server, port) && server.allows(networking.PolicyTypeIngress, client, port) {
					name := fmt.Sprintf("%s > %s:%d", client.name, server.name, port.ContainerPort)
					if port.Protocol == core.ProtocolUDP {
						name += "/udp"
					}
					all = append(all, name)
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// allows reports whether the policies of p allow a connection with another peer, in one direction, to a port of the server.
// What no policy of that direction selects may do everything.
func (p peer) allows(direction networking.PolicyType, other peer, port core.ContainerPort) bool {
	isolated := false
	for _, n := range p.policies {
		if !slices.Contains(n.Spec.PolicyTypes, direction) || !matchesLabels(&n.Spec.PodSelector, p.pod) {
			continue
		}
		isolated = true
		if direction == networking.PolicyTypeEgress {
			for _, rule := range n.Spec.Egress {
				if ruleAllows(rule.To, rule.Ports, p, other, port) {
					return true
				}
			}
			continue
		}
		for _, rule := range n.Spec.Ingress {
			if ruleAllows(rule.From, rule.Ports, p, other, port) {
				return true
			}
		}
	}
	return !isolated
}

// ruleAllows reports whether a rule of own contains another peer and a port of the server.
func ruleAllows(peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort, own, other peer, port core.ContainerPort) bool {
	return (len(peers) == 0 || slices.ContainsFunc(peers, func(rule networking.NetworkPolicyPeer) bool {
		switch {
		case rule.IPBlock != nil || other.namespace == nil: // Pods have no fixed addresses, and others no labels
			return false
		case rule.NamespaceSelector == nil:
			return other.namespace.String() == own.namespace.String() && matchesLabels(rule.PodSelector, other.pod)
		}
		return matchesLabels(rule.NamespaceSelector, other.namespace) && (rule.PodSelector == nil || matchesLabels(rule.PodSelector, other.pod))
	})) && (len(ports) == 0 || slices.ContainsFunc(ports, func(rule networking.NetworkPolicyPort) bool {
		protocol := core.ProtocolTCP
		if rule.Protocol != nil {
			protocol = *rule.Protocol
		}
		same := protocol == port.Protocol || port.Protocol == "" && protocol == core.ProtocolTCP
		return same && (rule.Port == nil || rule.Port.Type == intstr.Int && rule.Port.IntVal == port.ContainerPort ||
			rule.Port.Type == intstr.String && rule.Port.StrVal == port.Name)
	}))
}

func matchesLabels(selector *meta.LabelSelector, l labels.Set) bool {
	s, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(l)
}

// required returns the connections that an overlay needs, in order. Everything else is forbidden.
func required(overlay string) []string {
	all := []string{
		"outside > writer:8080", "outside > apisix:9080", "kube-system > writer:8080", "kube-system > apisix:9080",
		"monitoring > writer:8080", "monitoring > apisix:9080",
		"monitoring > writer:9092", "monitoring > apisix:9091", "monitoring > reader:80", "monitoring > auditor:9093",
		"apisix > reader:80", "auditor > reader:80",
	}
	names := []string{"writer", "reader", "auditor", "apisix"} // what resolves names
	clients := []string{"writer", "reader", "auditor"}         // what connects to Redis
	if overlay == "external" {
		for _, client := range clients {
			all = append(all, client+" > outside:6379", client+" > outside:26379")
		}
	} else {
		names = append(names, "redis-exporter")
		clients = append(clients, "redis-exporter")
		all = append(all, "monitoring > redis-exporter:9121")
	}
	if overlay == "sentinel" {
		names = append(names, "failover")
		clients = append(clients, "failover", "sentinel")
		all = append(all, "redis > redis:6379")
		for _, client := range clients {
			all = append(all, client+" > sentinel:26379")
		}
	}
	if overlay != "external" {
		for _, client := range clients {
			all = append(all, client+" > redis:6379")
		}
	}
	for _, name := range names {
		all = append(all, name+" > kube-system:53", name+" > kube-system:53/udp")
	}
	slices.Sort(all)
	return all
}

// TestConnections compares the connections that the NetworkPolicies allow with those that the programs need.
func TestConnections(t *testing.T) {
	for _, o := range overlays {
		if d := difference(allowed(decode(t, o.name)), required(o.name)); d != "" {
			t.Errorf("%s allows (+) or lacks (-):\n%s", o.name, d)
		}
	}
	for _, b := range []struct{ overlay, old, new, want string }{
		{"demo", "          - apisix\n          - auditor\n", "          - apisix\n", "- auditor > reader:80"},
		{"demo", "          - auditor\n          - redis-exporter\n", "          - redis-exporter\n", "- auditor > redis:6379"},
		{"demo", "  podSelector: {}\n  policyTypes:\n  - Ingress\n  - Egress", "  podSelector: {}\n  policyTypes:\n  - Ingress", "+ redis > outside:443"},
		{"demo", "kubernetes.io/metadata.name: kube-system", "kubernetes.io/metadata.name: dns", "- writer > kube-system:53"},
		{"demo", "protocol: UDP", "protocol: SCTP", "- apisix > kube-system:53/udp"},
		{"sentinel", "          - failover\n", "", "- failover > "},
		{"external", "port: 6379", "port: 443", "+ writer > outside:443"},
	} {
		good := stream(t, b.overlay)
		bad := bytes.Replace(good, []byte(b.old), []byte(b.new), 1)
		if bytes.Equal(bad, good) {
			t.Errorf("the overlay %s does not contain %q", b.overlay, b.old)
			continue
		}
		objects, err := Decode(bad)
		if err != nil {
			t.Fatal(err)
		}
		if d := difference(allowed(objects), required(b.overlay)); !strings.Contains(d+"\n", b.want) {
			t.Errorf("%q in place of %q is reported as %q, want %q", b.new, b.old, d, b.want)
		}
	}
}

// difference returns what is only in one of two sorted lists, with a sign.
func difference(got, want []string) string {
	var lines []string
	for _, line := range got {
		if !slices.Contains(want, line) {
			lines = append(lines, "+ "+line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			lines = append(lines, "- "+line)
		}
	}
	return strings.Join(lines, "\n")
}
