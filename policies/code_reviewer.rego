package agent.authz

default allow = false

allow {
  input.actor.type == "agent"
  input.actor.id == "agent-code-reviewer-01"
  input.on_behalf_of.user_id == "user_123"
  input.action == "pr.create"
  input.resource.repo == "acme/api"
  input.scope[_] == "pr:write:draft"
}
