# shellcheck shell=bash
# Apache Kafka's jars: fetched once through Maven into target/stack/kafka/libs. Sourced; needs ../lib.sh.

# Prints the folder that holds libs/*.jar, whether or not they are there yet.
kafka_home() {
  echo "${MILLRACE_KAFKA_HOME:-$ROOT/target/stack/kafka}"
}

kafka_jars_there() {
  local home
  home=$(kafka_home)
  if [ -n "${MILLRACE_KAFKA_HOME:-}" ]; then
    ls "$home"/libs/kafka-clients-*.jar >/dev/null 2>&1
    return
  fi
  # The pom that the jars were fetched by lies beside them: a changed version fetches again.
  cmp -s "$ROOT/deploy/native/pom.xml" "$home/pom.xml"
}

# Fetches the jars unless they are there. Returns 1, having said why, if they cannot be had.
fetch_kafka() {
  kafka_jars_there && return 0
  local home log
  home=$(kafka_home)
  if [ -n "${MILLRACE_KAFKA_HOME:-}" ]; then
    warn "MILLRACE_KAFKA_HOME=$home has no libs/kafka-clients-*.jar"
    return 1
  fi
  have_maven || { warn "Apache Maven (mvn) is needed to fetch Apache Kafka"; return 1; }
  log=$home/fetch.log
  rm -rf "$home"
  mkdir -p "$home"
  say "fetching Apache Kafka $(kafka_version) from Maven Central (about 40 MB, once)"
  if ! mvn -B -q -f "$ROOT/deploy/native/pom.xml" dependency:copy-dependencies \
      -DincludeScope=runtime "-DoutputDirectory=$home/libs" </dev/null >"$log" 2>&1; then
    warn "Maven could not fetch it; the end of $log:"
    tail -n 15 "$log" >&2
    return 1
  fi
  cp "$ROOT/deploy/native/pom.xml" "$home/pom.xml"
}

kafka_version() {
  sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$ROOT/deploy/native/pom.xml"
}

have_maven() {
  command -v mvn >/dev/null 2>&1 && find_java && JAVA_HOME=${JAVA_HOME:-} mvn -v >/dev/null 2>&1
}
