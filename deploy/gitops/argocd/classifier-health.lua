-- Health of a Classifier (ocelli.dev), judged as kstatus judges it, so that Argo CD and Flux agree.
-- Uses neither string nor math: Argo CD opens no such library for a script of argocd-cm.
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "Pending deletion" }
end

local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  -- Whatever the conditions say, they say it of an earlier spec. -1: the operator has not seen the object at all.
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
local told = "Waiting for the operator to say whether it is ready"
if conditions.Ready ~= nil then
  told = conditions.Ready.reason .. ": " .. (conditions.Ready.message or "")
end

if is_true("Reconciling") then
  return { status = "Progressing", message = told }
end
if is_true("Stalled") then
  if is_true("Available") then
    told = told .. " (" .. (conditions.Available.message or "") .. ")"
  end
  return { status = "Degraded", message = told }
end
if is_true("Ready") then
  return { status = "Healthy", message = told }
end
return { status = "Progressing", message = told }
