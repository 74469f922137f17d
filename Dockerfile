# The plugin's root folder: one static binary and the folders it is given.
FROM scratch
COPY build/plugin/rootfs/ /
ENTRYPOINT ["/flannel"]
