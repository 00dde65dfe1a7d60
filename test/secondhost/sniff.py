"""Prints the destination of each IP packet that leaves an interface for outside.

    sniff.py INTERFACE ADDRESS_OF_OTHER_END

Prints `ready` first and ends on SIGTERM. Multicast and link-local neighbours are
not outside.
"""

import ipaddress
import socket
import sys

ALL_PROTOCOLS = 0x0003
OUTGOING = 4


def destination(kind: int, packet: bytes) -> ipaddress._BaseAddress | None:
    """Where a packet without its Ethernet header goes; None for other protocols."""
    if kind == 0x0800:
        return ipaddress.IPv4Address(packet[16:20])
    if kind == 0x86DD:
        return ipaddress.IPv6Address(packet[24:40])
    return None


def main() -> None:
    """Watch until ended."""
    interface, inside = sys.argv[1], ipaddress.ip_address(sys.argv[2])
    with socket.socket(
        socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS)
    ) as watch:
        watch.bind((interface, ALL_PROTOCOLS))
        print("ready", flush=True)
        while True:
            packet, (_, kind, direction, *_) = watch.recvfrom(65535)
            if direction != OUTGOING:
                continue
            to = destination(kind, packet)
            if to is None or to == inside or to.is_multicast or to.is_link_local:
                continue
            print(f"{to} {packet[:80].hex()}", flush=True)


if __name__ == "__main__":
    main()
