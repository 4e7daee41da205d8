package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	recordLife  = 5
	tcpPatience = 10 * time.Second
)

// clusterNames answers for the names of Services, which is what pods of a test cluster look up:
// SERVICE.NAMESPACE.svc.DOMAIN, and HOSTNAME.SERVICE.NAMESPACE.svc.DOMAIN of headless ones. Any other name does not exist.
type clusterNames struct {
	suffix   string
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

// serveDNS is cluster DNS: it answers on UDP and TCP until it fails.
func serveDNS(arguments []string) error {
	flags := flag.NewFlagSet("dns", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "who to ask for Services")
	listen := flags.String("listen", "127.0.0.1:53", "address and port")
	domain := flags.String("domain", "cluster.local", "the cluster's domain")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	// Bound before the first answer is known: a query that comes early waits in the socket and finds it.
	packets, err := net.ListenPacket("udp4", *listen)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp4", *listen)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	names := clusterNames{
		suffix:   ".svc." + *domain + ".",
		services: factory.Core().V1().Services().Lister(),
		slices:   factory.Discovery().V1().EndpointSlices().Lister(),
	}
	factory.Start(context.Background().Done())
	factory.WaitForCacheSync(context.Background().Done())
	fmt.Println("answering on", *listen)
	failed := make(chan error, 2)
	go func() { failed <- names.servePackets(packets) }()
	go func() { failed <- names.serveStreams(streams) }()
	return <-failed
}

func (c clusterNames) servePackets(connection net.PacketConn) error {
	buffer := make([]byte, 4096)
	for {
		size, from, err := connection.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if reply, err := c.reply(buffer[:size]); err == nil {
			// The asker asks again when this is lost.
			_, _ = connection.WriteTo(reply, from)
		}
	}
}

func (c clusterNames) serveStreams(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			for {
				if connection.SetDeadline(time.Now().Add(tcpPatience)) != nil {
					return
				}
				var size uint16
				if binary.Read(connection, binary.BigEndian, &size) != nil {
					return
				}
				query := make([]byte, size)
				if _, err := io.ReadFull(connection, query); err != nil {
					return
				}
				reply, err := c.reply(query)
				if err != nil {
					return
				}
				if _, err := connection.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
					return
				}
			}
		}()
	}
}

func (c clusterNames) reply(query []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	if header.Response {
		return nil, errors.New("not a query")
	}
	addresses, alias, known := c.look(strings.ToLower(question.Name.String()))
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{question},
	}
	if !known {
		answer.RCode = dnsmessage.RCodeNameError
	}
	record := func(body dnsmessage.ResourceBody) {
		head := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: recordLife}
		answer.Answers = append(answer.Answers, dnsmessage.Resource{Header: head, Body: body})
	}
	if alias != "" {
		name, err := dnsmessage.NewName(strings.TrimSuffix(alias, ".") + ".")
		if err != nil {
			return nil, err
		}
		record(&dnsmessage.CNAMEResource{CNAME: name})
	}
	if question.Type == dnsmessage.TypeA {
		for _, address := range addresses {
			if four := net.ParseIP(address).To4(); four != nil {
				record(&dnsmessage.AResource{A: [4]byte(four)})
			}
		}
	}
	return answer.Pack()
}

// look finds a name's addresses, or the name that it stands for, and whether it exists at all.
func (c clusterNames) look(name string) (addresses []string, alias string, known bool) {
	rest, within := strings.CutSuffix(name, c.suffix)
	labelsOfName := strings.Split(rest, ".")
	if !within || len(labelsOfName) < 2 || len(labelsOfName) > 3 {
		return nil, "", false
	}
	last := len(labelsOfName) - 1
	service, err := c.services.Services(labelsOfName[last]).Get(labelsOfName[last-1])
	if err != nil {
		return nil, "", false
	}
	headless := service.Spec.ClusterIP == corev1.ClusterIPNone
	switch {
	case len(labelsOfName) == 3 && headless:
		addresses = c.endpoints(service, labelsOfName[0])
		return addresses, "", len(addresses) > 0
	case len(labelsOfName) == 3:
		return nil, "", false
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		return nil, service.Spec.ExternalName, true
	case headless:
		return c.endpoints(service, ""), "", true
	default:
		return service.Spec.ClusterIPs, "", true
	}
}

func (c clusterNames) endpoints(service *corev1.Service, hostname string) (addresses []string) {
	ours := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service.Name})
	slices, err := c.slices.EndpointSlices(service.Namespace).List(ours)
	if err != nil {
		return nil
	}
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready || service.Spec.PublishNotReadyAddresses
			wanted := hostname == "" || (endpoint.Hostname != nil && *endpoint.Hostname == hostname)
			if ready && wanted {
				addresses = append(addresses, endpoint.Addresses...)
			}
		}
	}
	return addresses
}
