# Orthanc with the plugin; its sources are beside it, as the licence of Orthanc's Python plugin asks.
#
#   docker build -f docker/orthanc.Dockerfile -t orthanc-pacs-bridge .
#
# Not below 1.12.11: earlier versions have faults by which a file can crash Orthanc or worse.
FROM jodogne/orthanc-python:1.12.11
USER 0
RUN install -d -o 10002 -g 10002 -m 0750 /var/lib/orthanc/db
COPY pacs_bridge/__init__.py pacs_bridge/orthanc_plugin.py /opt/pacs-bridge/pacs_bridge/
COPY pacs_bridge/plugin /opt/pacs-bridge/pacs_bridge/plugin
ENV PYTHONDONTWRITEBYTECODE=1
USER 10002:10002
VOLUME /var/lib/orthanc/db
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8042), 4)"]
