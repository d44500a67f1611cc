"""Scripted OTLP backends over real sockets: what a backend may do to an exporter.

`server` has the listening socket, the record of what was sent there, and HTTP/1.1; `grpc` has
gRPC over HTTP/2, made by hand so that it can be wrong. `http_ways` and `grpc_ways` are the ways to
misbehave. `decode` turns bodies of every protocol into the official messages, `certs` makes
certificates, `dns` is a name server. `beside` and `probe` run as processes of their own, so that
what they measure is not this interpreter.
"""
