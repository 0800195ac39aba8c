# A site in a container: the program and nothing else. Build the program first: make release ARCHS=amd64.
#
#   docker build -t kedge .
#   docker run -d --privileged --init --cgroupns=host --tmpfs /run -v kedge:/var/lib/kedge -p 6443:6443 kedge
FROM scratch
ARG TARGETARCH=amd64
COPY --chmod=0755 dist/kedge-${TARGETARCH} /bin/kedge
# The kubelet looks for a user in it.
COPY <<PASSWD /etc/passwd
root:x:0:0:root:/:/bin/kedge
PASSWD
ENV PATH=/bin
# The runtime's layers must not lie on another overlay, and pods' files must outlive the container.
VOLUME ["/var/lib/kedge", "/var/lib/kubelet", "/var/log"]
EXPOSE 6443
STOPSIGNAL SIGTERM
ENTRYPOINT ["/bin/kedge"]
CMD ["server"]
