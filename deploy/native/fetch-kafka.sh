# shellcheck shell=bash
# Downloads Apache Kafka's jars with Maven into target/stack/kafka/libs. Sourced; needs ../lib.sh.

# kafka_home: prints the folder of libs/*.jar, whether or not they exist yet.
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
  # The jars' pom is beside them: a changed version downloads again.
  cmp -s "$ROOT/deploy/native/pom.xml" "$home/pom.xml"
}

# fetch_kafka: downloads the jars unless they exist; on failure prints why and returns 1.
fetch_kafka() {
  kafka_jars_there && return 0
  local home log
  home=$(kafka_home)
  if [ -n "${MILLRACE_KAFKA_HOME:-}" ]; then
    warn "MILLRACE_KAFKA_HOME=$home has no libs/kafka-clients-*.jar"
    return 1
  fi
  have_maven || { warn "Apache Kafka cannot be downloaded without Apache Maven (mvn)"; return 1; }
  log=$home/fetch.log
  rm -rf "$home"
  mkdir -p "$home"
  say "downloading Apache Kafka $(kafka_version) from Maven Central (about 40 MB, once)"
  if ! mvn -B -q -f "$ROOT/deploy/native/pom.xml" dependency:copy-dependencies \
      -DincludeScope=runtime "-DoutputDirectory=$home/libs" </dev/null >"$log" 2>&1; then
    warn "Maven could not download it; the end of $log:"
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
