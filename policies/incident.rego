# The incident of the README in Rego: the same rules and the same table as `incident.cedar`, which says what the tools'
# entries take from the arguments.

package mcp_authz.incident

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

forbidden contains "staging-agents-never-read-production-secrets" if {
	input.action == "secret.read"
	environment == "staging"
	input.resource.secret_environment == "production"
}

forbidden contains "delegated-coders-open-only-draft-pull-requests" if {
	input.action == "pr.create"
	input.session.mode == "delegated"
	not input.arguments.draft == true
}

forbidden contains "staging-agents-delegate-to-staging-agents-only" if {
	input.action == "delegate"
	environment == "staging"
	not input.resource.delegate_labels.environment == "staging"
}

permitted contains "agents-delegate-for-people" if {
	for_a_person
	input.action == "delegate"
}

permitted contains "agents-list-for-people" if {
	for_a_person
	input.action in {"pr.list", "deploy.list"}
}

permitted contains "agents-open-pull-requests-for-people" if {
	for_a_person
	input.action == "pr.create"
}

permitted contains "agents-read-secrets-of-their-own-environment" if {
	for_a_person
	input.action == "secret.read"
	input.resource.secret_environment == environment
}

permitted contains "merges-need-approval" if {
	for_a_person
	input.action == "pr.merge"
}

permitted contains "agents-deploy-to-staging" if {
	for_a_person
	input.action == "deploy.create"
	input.resource.deploy_environment == "staging"
}

permitted contains "production-deploys-need-approval" if {
	for_a_person
	input.action == "deploy.create"
	input.resource.deploy_environment == "production"
}

obligations contains {"kind": "approval", "argument": "destructive"} if "merges-need-approval" in permitted

obligations contains {"kind": "approval", "argument": "production-deploy"} if {
	"production-deploys-need-approval" in permitted
}

# Null is no environment: an agent without one is of none, and not of the same as a secret without one.
environment := input.actor.labels.environment if is_string(input.actor.labels.environment)

for_a_person if {
	input.session != null
	input.on_behalf_of != null
}
