#!/usr/bin/env bash
# Makes a development authority and a server certificate: certs/make-dev-ca.sh [FOLDER [NAME...]]
# FOLDER (default conf/tls) gets ca.pem, ca.key, server.pem, server.key, client.pem, client.key, and secret.yaml for
# `credentialName: example-certificate`. An authority that is already there is kept; the certificates are made again.
set -euo pipefail
umask 077

folder=${1:-$(dirname "$0")/../conf/tls}
if [ $# -gt 1 ]; then names=("${@:2}"); else names=("*.example.com" example.com localhost); fi

mkdir -p "$folder"
cd "$folder"

if [ ! -e ca.key ] || [ ! -e ca.pem ]; then
  openssl ecparam -name prime256v1 -genkey -noout -out ca.key
  openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=Limani development authority" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.pem
fi

# sign NAME SUBJECT USAGE NAMES: makes NAME.key and NAME.pem.
sign() {
  openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key"
  openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -sha256 -days 90 -out "$1.pem" -extfile <(
    echo "subjectAltName=$4"
    echo "basicConstraints=critical,CA:FALSE"
    echo "keyUsage=critical,digitalSignature"
    echo "extendedKeyUsage=$3"
  ) 2>/dev/null
  rm -f "$1.csr" ca.srl
}

printf -v list 'DNS:%s,' "${names[@]}"
sign server "Limani development" serverAuth "${list%,}"
sign client "Limani development client" clientAuth DNS:client.example.com

cat > secret.yaml <<YAML
apiVersion: v1
kind: Secret
metadata:
  name: example-certificate
  namespace: istio-system
type: kubernetes.io/tls
data:
  tls.crt: $(base64 < server.pem | tr -d '\n')
  tls.key: $(base64 < server.key | tr -d '\n')
  ca.crt: $(base64 < ca.pem | tr -d '\n')
YAML

chmod 644 ca.pem server.pem client.pem
echo "made in $PWD: ca.pem (trust this one), server.pem and server.key (${names[*]}), client.pem and client.key, secret.yaml"
