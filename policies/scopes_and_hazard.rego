# The default, in Rego: the same rules and the same table as `scopes_and_hazard.cedar`, where it is explained. In Rego an
# approval is asked for in `obligations`; the gateway holds the call until somebody has met the rule.

package mcp_authz.scopes_and_hazard

import rego.v1

decision := {"allow": allow, "because": rules, "obligations": obligations}

default allow := false

allow if count(rules) > 0

rules contains "people-may-have-agents-read-and-write-within-their-scopes" if {
	for_a_person
	input.resource.hazard in {"read", "write"}
}

rules contains "destructive-calls-need-approval" if {
	for_a_person
	input.resource.hazard == "destructive"
}

obligations contains {"kind": "approval", "argument": "destructive"} if "destructive-calls-need-approval" in rules

# What is not known is null, which is not false: without the comparison a call without a session would pass.
for_a_person if {
	input.session != null
	input.on_behalf_of != null
}
