package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"heavy-read-api/test/kubernetes/control"
	"heavy-read-api/test/kubernetes/manifests"
)

const (
	namespace = "heavy-read-api"
	nameLabel = "app.kubernetes.io/name"
	patience  = 3 * time.Minute
)

// stack is the overlay sentinel on nodes that do not exist.
type stack struct {
	*testing.T
	client  *kubernetes.Clientset
	kubelet *kubelet
}

// TestCluster applies the overlay sentinel and plays through what happens to it. The parts build on each other.
func TestCluster(t *testing.T) {
	plane := control.Start(t)
	plane.Controllers(t)
	s := &stack{T: t, client: plane.Client, kubelet: startNodes(t, plane.Client, 4)}
	s.apply(plane)
	for _, part := range []struct {
		name string
		run  func(*stack)
	}{
		{"everything becomes available", (*stack).available},
		{"the Pods are spread over nodes and zones", (*stack).spread},
		{"the readers' Service lists readers that are not ready", (*stack).notReady},
		{"a rollout never has fewer readers", (*stack).rollout},
		{"a rollout that does not become ready stops", (*stack).badRollout},
		{"the autoscaler scales the readers", (*stack).scale},
		{"a budget refuses the second eviction", (*stack).budget},
		{"a node's drain completes", (*stack).drain},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(&stack{T: t, client: s.client, kubelet: s.kubelet}) }) {
			return
		}
	}
}

// apply creates what a user creates first, and applies the overlay.
func (s *stack) apply(plane *control.Plane) {
	stream, err := manifests.Build("../../../deploy/kubernetes/overlays/sentinel")
	if err != nil {
		s.Fatal(err)
	}
	objects, err := manifests.Documents(stream)
	if err != nil {
		s.Fatal(err)
	}
	applier, err := control.NewApplier(plane)
	if err != nil {
		s.Fatal(err)
	}
	for _, o := range objects {
		if _, err := applier.Apply(s.Context(), o, false); err != nil {
			s.Fatal(err)
		}
	}
}

// pods returns the Pods of a program that are not being deleted.
func (s *stack) pods(name string) (found []core.Pod) {
	list, err := s.client.CoreV1().Pods(namespace).List(s.Context(), meta.ListOptions{LabelSelector: nameLabel + "=" + name})
	if err != nil {
		s.Fatal(err)
	}
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			found = append(found, p)
		}
	}
	return found
}

// complete returns nil when a Deployment has n available Pods of its current template and no others.
func (s *stack) complete(name string, n int32) func() error {
	return func() error {
		d, err := s.client.AppsV1().Deployments(namespace).Get(s.Context(), name, meta.GetOptions{})
		if err != nil {
			return err
		}
		st := d.Status
		if st.ObservedGeneration != d.Generation || *d.Spec.Replicas != n || st.Replicas != n || st.UpdatedReplicas != n || st.AvailableReplicas != n {
			return fmt.Errorf("%s: want %d, has %d replicas, %d updated, %d available", name, n, st.Replicas, st.UpdatedReplicas, st.AvailableReplicas)
		}
		return nil
	}
}

var deployments = map[string]int32{"reader": 3, "writer": 2, "apisix": 2, "auditor": 1, "redis-exporter": 1}

func (s *stack) available() {
	for name, n := range deployments {
		control.Wait(s.T, patience, name, s.complete(name, n))
	}
	for _, name := range []string{"redis", "sentinel"} {
		control.Wait(s.T, patience, name, func() error {
			set, err := s.client.AppsV1().StatefulSets(namespace).Get(s.Context(), name, meta.GetOptions{})
			if err == nil && set.Status.AvailableReplicas != 3 {
				err = fmt.Errorf("%s has %d of 3 Pods available", name, set.Status.AvailableReplicas)
			}
			return err
		})
		for i := range 3 {
			pod, err := s.client.CoreV1().Pods(namespace).Get(s.Context(), fmt.Sprintf("%s-%d", name, i), meta.GetOptions{})
			if err != nil {
				s.Fatal(err)
			}
			control.Wait(s.T, patience/6, "the Service "+pod.Name, func() error {
				if got := s.endpoints(pod.Name); !slices.Equal(got, []string{pod.Status.PodIP}) {
					return fmt.Errorf("leads to %v, want %s", got, pod.Status.PodIP)
				}
				return nil
			})
		}
	}
}

// endpoints returns the addresses of a Service that DNS lists.
func (s *stack) endpoints(service string) (addresses []string) {
	list, err := s.client.DiscoveryV1().EndpointSlices(namespace).List(s.Context(), meta.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
	if err != nil {
		s.Fatal(err)
	}
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && *e.Conditions.Ready {
				addresses = append(addresses, e.Addresses...)
			}
		}
	}
	slices.Sort(addresses)
	return addresses
}

func (s *stack) spread() {
	list, err := s.client.CoreV1().Nodes().List(s.Context(), meta.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	zone := map[string]string{}
	for _, n := range list.Items {
		zone[n.Name] = n.Labels[core.LabelTopologyZone]
	}
	for _, name := range []string{"reader", "writer", "apisix", "redis", "sentinel"} {
		nodes, zones := map[string]int{}, map[string]int{}
		for _, p := range s.pods(name) {
			nodes[p.Spec.NodeName]++
			zones[zone[p.Spec.NodeName]]++
		}
		if slices.Max(slices.Collect(maps.Values(nodes))) > 1 || len(zones) != 2 {
			s.Errorf("%s runs on %v in %v, want one on each node and both zones", name, nodes, zones)
		}
	}
}

func (s *stack) notReady() {
	s.kubelet.breakPods("reader")
	victim := s.pods("reader")[0]
	if err := s.client.CoreV1().Pods(namespace).Delete(s.Context(), victim.Name, meta.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
	control.Wait(s.T, patience/6, "the address of a reader that is not ready", func() error {
		var want []string
		ready := 0
		for _, p := range s.pods("reader") {
			if want = append(want, p.Status.PodIP); isReady(&p) {
				ready++
			}
		}
		slices.Sort(want)
		if got := s.endpoints("reader"); ready != 2 || len(want) != 3 || !slices.Equal(got, want) {
			return fmt.Errorf("%d readers are ready, %v run, the Service lists %v", ready, want, got)
		}
		return nil
	})
	s.kubelet.breakPods("")
	control.Wait(s.T, patience, "readers", s.complete("reader", 3))
}

// change sets an environment variable of a Deployment.
func (s *stack) change(name, value string) {
	patch := fmt.Sprintf(`{"spec":{"template":{"spec":{"containers":[{"name":%q,"env":[{"name":"LOG_LEVEL","value":%q}]}]}}}}`, name, value)
	if _, err := s.client.AppsV1().Deployments(namespace).Patch(s.Context(), name, types.StrategicMergePatchType, []byte(patch), meta.PatchOptions{}); err != nil {
		s.Fatal(err)
	}
}

func (s *stack) rollout() {
	samples := s.kubelet.watch(func() {
		s.change("reader", "debug")
		control.Wait(s.T, patience, "readers", s.complete("reader", 3))
	})
	for _, sample := range samples {
		if sample.ready < 3 || sample.all > 4 {
			s.Fatalf("during the rollout %d of %d readers were ready: %v", sample.ready, sample.all, samples)
		}
	}
}

func (s *stack) badRollout() {
	before := names(s.pods("writer"))
	s.kubelet.breakPods("writer")
	s.change("writer", "debug")
	control.Wait(s.T, patience, "a writer that does not become ready", func() error {
		if pods := s.pods("writer"); len(pods) != 3 {
			return fmt.Errorf("%d writers", len(pods))
		}
		return nil
	})
	for range 20 {
		if now := names(s.pods("writer")); len(now) != 3 || !subset(before, now) {
			s.Fatalf("the old writers %v do not stay: %v", before, now)
		}
		time.Sleep(100 * time.Millisecond) // the controller would act within milliseconds
	}
	s.kubelet.breakPods("")
	control.Wait(s.T, patience, "writers", s.complete("writer", 2))
}

func names(pods []core.Pod) (all []string) {
	for _, p := range pods {
		all = append(all, p.Name)
	}
	return all
}

func subset(some, all []string) bool {
	for _, s := range some {
		if !slices.Contains(all, s) {
			return false
		}
	}
	return true
}

func (s *stack) scale() {
	for _, n := range []int32{5, 3} {
		patch := fmt.Sprintf(`{"spec":{"minReplicas":%d,"maxReplicas":%d}}`, n, n)
		if _, err := s.client.AutoscalingV2().HorizontalPodAutoscalers(namespace).Patch(s.Context(), "reader", types.MergePatchType, []byte(patch), meta.PatchOptions{}); err != nil {
			s.Fatal(err)
		}
		control.Wait(s.T, patience, fmt.Sprintf("%d readers", n), s.complete("reader", n))
	}
}

func (s *stack) evict(pod string) error {
	return s.client.PolicyV1().Evictions(namespace).Evict(s.Context(), &policy.Eviction{ObjectMeta: meta.ObjectMeta{Name: pod, Namespace: namespace}})
}

// budget evicts Pods while their replacements do not become ready.
func (s *stack) budget() {
	for _, name := range []string{"reader", "writer", "apisix", "redis", "sentinel"} {
		pods := s.pods(name)
		control.Wait(s.T, patience/6, "the budget of "+name, func() error {
			b, err := s.client.PolicyV1().PodDisruptionBudgets(namespace).Get(s.Context(), name, meta.GetOptions{})
			if err == nil && (b.Status.ObservedGeneration != b.Generation || b.Status.DisruptionsAllowed != 1) {
				err = fmt.Errorf("allows %d disruptions", b.Status.DisruptionsAllowed)
			}
			return err
		})
		s.kubelet.breakPods(name)
		if err := s.evict(pods[0].Name); err != nil {
			s.Fatalf("the first eviction of a %s: %v", name, err)
		}
		if err := s.evict(pods[1].Name); !apierrors.IsTooManyRequests(err) {
			s.Errorf("the second eviction of a %s: %v, want too many requests", name, err)
		}
		s.kubelet.breakPods("")
		control.Wait(s.T, patience, "a new "+name, func() error {
			for _, p := range s.pods(name) {
				if !isReady(&p) {
					return fmt.Errorf("%s is not ready", p.Name)
				}
			}
			if n := len(s.pods(name)); n != len(pods) {
				return fmt.Errorf("%d Pods", n)
			}
			return nil
		})
	}
}

// drain does what kubectl drain does to the node with the most Pods.
func (s *stack) drain() {
	on := map[string]int{}
	for _, p := range s.all() {
		on[p.Spec.NodeName]++
	}
	node := slices.MaxFunc(slices.Collect(maps.Keys(on)), func(a, b string) int { return on[a] - on[b] })
	if _, err := s.client.CoreV1().Nodes().Patch(s.Context(), node, types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), meta.PatchOptions{}); err != nil {
		s.Fatal(err)
	}
	samples := s.kubelet.watch(func() {
		control.Wait(s.T, patience, "an empty node", func() error {
			var left []string
			for _, p := range s.all() {
				if p.Spec.NodeName == node {
					left = append(left, p.Name)
					if err := s.evict(p.Name); err != nil && !apierrors.IsTooManyRequests(err) && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
						return err
					}
				}
			}
			if len(left) > 0 {
				return errors.New(strings.Join(left, ", ") + " still there")
			}
			return nil
		})
		for name, n := range deployments {
			control.Wait(s.T, patience, name, s.complete(name, n))
		}
	})
	for _, sample := range samples {
		if sample.ready < 2 {
			s.Fatalf("during the drain only %d readers were ready: %v", sample.ready, samples)
		}
	}
	s.Logf("%s had %d Pods", node, on[node])
	for _, name := range []string{"redis", "sentinel"} {
		control.Wait(s.T, patience, name, func() error {
			set, err := s.client.AppsV1().StatefulSets(namespace).Get(s.Context(), name, meta.GetOptions{})
			if err == nil && set.Status.AvailableReplicas != 3 {
				err = fmt.Errorf("%d of 3 Pods available", set.Status.AvailableReplicas)
			}
			return err
		})
	}
}

// all returns all Pods that are placed and not being deleted.
func (s *stack) all() (placed []core.Pod) {
	list, err := s.client.CoreV1().Pods(namespace).List(s.Context(), meta.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for _, p := range list.Items {
		if p.Spec.NodeName != "" && p.DeletionTimestamp == nil {
			placed = append(placed, p)
		}
	}
	return placed
}
