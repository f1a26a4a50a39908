# Agents work in their own environment, and staging agents never touch production: `environments.cedar` in Rego, with
# the same table. There stands what labels and tools' entries must declare.

package mcp_authz.environments

import rego.v1

decision := {"allow": allow, "because": because, "obligations": obligations}

default allow := false

allow if {
	count(forbidden) == 0
	count(permitted) > 0
}

because := forbidden if {
	count(forbidden) > 0
} else := permitted

forbidden contains "staging-agents-never-touch-production" if {
	environment == "staging"
	"production" in {input.resource.environment, object.get(input.resource, "target_environment", "")}
}

forbidden contains "calls-stay-in-the-environment-of-the-agent" if {
	input.resource.target_environment != null
	not input.resource.target_environment == environment
}

forbidden contains "agents-delegate-within-their-environment" if {
	input.action == "delegate"
	not input.resource.delegate_labels.environment == environment
}

permitted contains "people-may-have-agents-delegate" if {
	for_a_person
	input.action == "delegate"
}

permitted contains "agents-read-and-write-in-their-own-environment" if {
	for_a_person
	input.resource.hazard in {"read", "write"}
	input.resource.environment == environment
}

permitted contains "destructive-calls-in-their-own-environment-need-approval" if {
	for_a_person
	input.resource.hazard == "destructive"
	input.resource.environment == environment
}

obligations contains {"kind": "approval", "argument": "destructive"} if {
	"destructive-calls-in-their-own-environment-need-approval" in permitted
}

# Null is no environment: an agent without one is of none, and not of the same as another without one.
environment := input.actor.labels.environment if is_string(input.actor.labels.environment)

for_a_person if {
	input.session != null
	input.on_behalf_of != null
}
