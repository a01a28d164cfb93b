-- Health of a Classifier (ocelli.dev), by the rules of kstatus, so that Argo CD and Flux agree.
-- Uses neither string nor math: Argo CD does not load these libraries for scripts in argocd-cm.
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "Pending deletion" }
end

local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  -- The conditions belong to an earlier spec. -1: the operator has not seen the object yet.
  return {
    status = "Progressing",
    message = "Waiting for the operator to see generation " .. obj.metadata.generation
  }
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is_true(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end

-- The reason of Ready names the state in one word.
local message = "Waiting for the operator to say whether it is ready"
if conditions.Ready ~= nil then
  message = conditions.Ready.reason .. ": " .. (conditions.Ready.message or "")
end

if is_true("Reconciling") then
  return { status = "Progressing", message = message }
end
if is_true("Stalled") then
  if is_true("Available") then
    message = message .. " (" .. (conditions.Available.message or "") .. ")"
  end
  return { status = "Degraded", message = message }
end
if is_true("Ready") then
  return { status = "Healthy", message = message }
end
local reason = conditions.Ready ~= nil and conditions.Ready.reason
if reason == "AwaitingApproval" or reason == "Suspended" then
  -- Like a paused rollout: nothing has failed, and nothing happens until a person approves the revision, or sets spec.suspend
  -- to false.
  return { status = "Suspended", message = message }
end
return { status = "Progressing", message = message }
