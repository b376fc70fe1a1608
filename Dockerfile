# The image of Certwright: one static program, and a folder for its data. scripts/image makes
# what is copied here, and then the image; docs/containers.md tells how to run it.
FROM scratch

COPY bin/image/certwright /usr/local/bin/certwright
# Empty. A new volume takes over the owner.
COPY --chown=65532:65532 bin/image/data /data

# In a container, listeners are for others; what is published decides which.
ENV PATH=/usr/local/bin \
    CERTWRIGHT_DATA=/data \
    CERTWRIGHT_HTTP=:8080 \
    CERTWRIGHT_HTTPS=:8443 \
    CERTWRIGHT_MTLS=:8444
EXPOSE 8080 8443 8444
WORKDIR /data
VOLUME /data
# A number, so that runtimes can see that it is not root.
USER 65532:65532

# Whether the process serves, and no more: restarting mends no database.
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=3 \
    CMD ["/usr/local/bin/certwright", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/certwright"]
CMD ["serve"]
