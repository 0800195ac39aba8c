// libprotocols.so answers nft's questions about the names of IP protocols in
// place of the host's /etc/protocols. A small host has no such file; nft then
// lists "6" for what was added as "tcp", and kube-proxy, which compares what it
// lists with what it wants, deletes the rules of every Service when it restarts.
//
// The names are those of the IANA registry "Assigned Internet Protocol Numbers",
// written as Debian's netbase writes them.

struct protoent {
	char *p_name;
	char **p_aliases;
	int p_proto;
};

static char *no_aliases[1];

#define P(name, number) { name, no_aliases, number }

static struct protoent known[] = {
	P("tcp", 6), P("udp", 17), P("sctp", 132), P("icmp", 1), P("ipv6-icmp", 58),
	P("ip", 0), P("igmp", 2), P("ggp", 3), P("ipencap", 4), P("st", 5), P("egp", 8),
	P("igp", 9), P("pup", 12), P("hmp", 20), P("xns-idp", 22), P("rdp", 27),
	P("iso-tp4", 29), P("dccp", 33), P("xtp", 36), P("ddp", 37), P("idpr-cmtp", 38),
	P("ipv6", 41), P("ipv6-route", 43), P("ipv6-frag", 44), P("idrp", 45), P("rsvp", 46),
	P("gre", 47), P("esp", 50), P("ah", 51), P("skip", 57), P("ipv6-nonxt", 59),
	P("ipv6-opts", 60), P("rspf", 73), P("vmtp", 81), P("eigrp", 88), P("ospf", 89),
	P("ax.25", 93), P("ipip", 94), P("etherip", 97), P("encap", 98), P("pim", 103),
	P("ipcomp", 108), P("vrrp", 112), P("l2tp", 115), P("isis", 124), P("fc", 133),
	P("mobility-header", 135), P("udplite", 136), P("mpls-in-ip", 137), P("manet", 138),
	P("hip", 139), P("shim6", 140), P("wesp", 141), P("rohc", 142), P("ethernet", 143),
};

#define KNOWN (sizeof(known) / sizeof(known[0]))

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

struct protoent *getprotobyname(const char *name)
{
	for (unsigned i = 0; i < KNOWN; i++)
		if (same(known[i].p_name, name))
			return &known[i];
	return 0;
}

struct protoent *getprotobynumber(int number)
{
	for (unsigned i = 0; i < KNOWN; i++)
		if (known[i].p_proto == number)
			return &known[i];
	return 0;
}
