# shellcheck shell=bash
# What authentication and TLS cost a durable POST: closed loops of wrk without authentication, with an API key, and with an
# API key over TLS.

# Now, not after the other parts have been measured.
command -v openssl >/dev/null 2>&1 || fail "openssl was not found: the part auth makes a certificate with it"

AUTH_CONNECTIONS=256

post_open() { wrk_load post $AUTH_CONNECTIONS "$AUTH_OPEN"; }
post_key() { wrk_load post $AUTH_CONNECTIONS "$AUTH_PLAIN" http -H "Authorization: Bearer $AUTH_KEY"; }
post_tls() { wrk_load post $AUTH_CONNECTIONS "$AUTH_TLS" https -H "Authorization: Bearer $AUTH_KEY"; }

# auth_create NAME SCOPE: prints a new key.
auth_create() { "$MILLRACE" keys create "$1" --scope "$2" --file "$DATA/auth-keys.toml" || fail "no key could be created"; }

# auth_start NAME ENGINE SETTING...: embedded all of `up`, on Kafka `millrace command`. Sets COMMAND.
auth_start() {
  local name=$1 engine=$2
  shift 2
  if [ "$engine" = kafka ]; then start_command "$name" "$@"; else start_up "$name" embedded "$@"; fi
}

measure_auth() {
  local engine with=''
  AUTH_KEY=$(auth_create load events:write)
  # Processes on Kafka do not start without a key for calls to each other.
  (umask 077 && auth_create processes admin >"$DATA/auth-process.key")
  (umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=IP:127.0.0.1 -keyout "$DATA/auth-tls.key" -out "$DATA/auth-tls.pem" 2>"$DATA/log/openssl.log") ||
    fail "openssl made no certificate; see $DATA/log/openssl.log"
  set -- auth.mode=keys "auth.keys_file=$DATA/auth-keys.toml" "auth.process_key_file=$DATA/auth-process.key"
  for engine in embedded kafka; do
    auth_start auth-open "$engine"
    AUTH_OPEN=$COMMAND
    auth_start auth-key "$engine" "$@"
    AUTH_PLAIN=$COMMAND
    auth_start auth-tls "$engine" "$@" "tls.certificate_file=$DATA/auth-tls.pem" "tls.key_file=$DATA/auth-tls.key"
    AUTH_TLS=$COMMAND
    [ "$engine" = embedded ] || { warm_broker "$AUTH_OPEN"; with=" kafka"; }
    measure "auth-key-$engine" post_key "auth-key$with" post_open "auth-open$with"
    measure "auth-tls-$engine" post_tls "auth-tls$with" post_open "auth-open$with"
    end auth-open
    end auth-key
    end auth-tls
  done
}

report_auth() {
  local engine title
  say "POST with authentication, 204 when durable, $AUTH_CONNECTIONS connections; all on the same cores. Medians"
  heading
  for engine in embedded kafka; do
    title="Apache Kafka"; [ "$engine" = kafka ] || title="embedded, all of up"
    compare "auth-key-$engine" "$title, without authentication" "$title, API key" 0.9
    compare "auth-tls-$engine" "$title, without authentication" "$title, API key and TLS" 0.75
    row "$title: CPU us/answer of wrk, without / with TLS" \
      "$(column 1 <"$DATA/auth-tls-$engine.bare-cpu" | median) / $(column 1 <"$DATA/auth-tls-$engine.cpu" | median)"
  done
}
