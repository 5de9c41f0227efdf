# shellcheck shell=bash
# Finds the container engine and its compose plugin. Sourced.

# find_engine: sets ENGINE_COMMAND (docker or podman) if an engine answers; a client alone is not enough.
find_engine() {
  local name
  for name in docker podman; do
    if command -v "$name" >/dev/null 2>&1 && "$name" info >/dev/null 2>&1; then
      ENGINE_COMMAND=$name
      return 0
    fi
  done
  return 1
}

# find_compose: sets COMPOSE, the words of the compose command, if engine and plugin answer.
find_compose() {
  find_engine || return 1
  if "$ENGINE_COMMAND" compose version >/dev/null 2>&1; then
    COMPOSE="$ENGINE_COMMAND compose"
  elif [ "$ENGINE_COMMAND" = docker ] && docker-compose version >/dev/null 2>&1; then
    COMPOSE=docker-compose
  else
    return 1
  fi
}
