import com.google.gson.Gson;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.ibm.cloud.sdk.core.security.IamAuthenticator;
import com.ibm.cloud.sdk.core.service.exception.ServiceResponseException;
import com.ibm.watson.visual_recognition.v3.VisualRecognition;
import com.ibm.watson.visual_recognition.v3.model.ClassifiedImages;
import com.ibm.watson.visual_recognition.v3.model.Classifier;
import com.ibm.watson.visual_recognition.v3.model.ClassifyOptions;
import com.ibm.watson.visual_recognition.v3.model.CreateClassifierOptions;
import com.ibm.watson.visual_recognition.v3.model.DeleteClassifierOptions;
import com.ibm.watson.visual_recognition.v3.model.GetClassifierOptions;
import com.ibm.watson.visual_recognition.v3.model.GetCoreMlModelOptions;
import com.ibm.watson.visual_recognition.v3.model.UpdateClassifierOptions;
import java.io.File;
import java.io.InputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;

/** The life of a classifier through the Java SDK of IBM's service: the same steps as ../python/steps.py, see there. */
public class Steps {
    private static final long DEADLINE_MILLISECONDS = 300_000;

    /** As the test gives them. */
    private static class Options {
        String address;
        String tokenAddress;
        String apiKey;
        String samples;
        String imageURL;
        String missingURL;
        String generation;
        List<String> steps;
    }

    private final Options options;
    private final VisualRecognition service;
    private String classifierId;

    private Steps(Options options) {
        this.options = options;
        IamAuthenticator authenticator = new IamAuthenticator(options.apiKey);
        authenticator.setURL(options.tokenAddress);
        service = new VisualRecognition("2018-03-19", authenticator);
        service.setServiceUrl(options.address);
    }

    private static void check(boolean condition, Object found) {
        if (!condition) {
            throw new AssertionError(found);
        }
    }

    private File sample(String name) {
        return new File(options.samples, name);
    }

    private Classifier get() {
        return service.getClassifier(new GetClassifierOptions.Builder(classifierId).build()).execute().getResult();
    }

    private Classifier waitUntilReady() throws InterruptedException {
        long deadline = System.currentTimeMillis() + DEADLINE_MILLISECONDS;
        while (true) {
            Classifier found = get();
            if (found.getStatus().equals(Classifier.Status.READY)) {
                return found;
            }
            check(found.getStatus().endsWith("training"), found);
            check(System.currentTimeMillis() < deadline, found);
            Thread.sleep(300);
        }
    }

    private static List<String> names(Classifier classifier) {
        return classifier.getClasses().stream().map(item -> item.getXClass()).sorted().collect(Collectors.toList());
    }

    private static List<String> classes(ClassifiedImages result) {
        return result.getImages().get(0).getClassifiers().get(0).getClasses().stream()
            .map(item -> item.getXClass()).sorted().collect(Collectors.toList());
    }

    private ClassifiedImages classify(ClassifyOptions.Builder builder) {
        return service.classify(builder.addClassifierId(classifierId).build()).execute().getResult();
    }

    private static ServiceResponseException refusal(Runnable call) {
        try {
            call.run();
        } catch (ServiceResponseException error) {
            return error;
        }
        throw new AssertionError("it was not refused");
    }

    public void create() throws Exception {
        Classifier created = service.createClassifier(
            new CreateClassifierOptions.Builder("java " + options.generation)
                .addPositiveExamples("zero", sample("zero.zip"))
                .addPositiveExamples("one", sample("one.zip"))
                .negativeExamples(sample("other-digits.zip"))
                .build()
        ).execute().getResult();
        check(created.getStatus().equals(Classifier.Status.TRAINING), created);
        check(names(created).equals(Arrays.asList("one", "zero")), created);
        classifierId = created.getClassifierId();
    }

    public void poll() throws Exception {
        check(waitUntilReady().isCoreMlEnabled(), "core_ml_enabled");
    }

    public void list() {
        List<Classifier> listed = service.listClassifiers().execute().getResult().getClassifiers();
        check(listed.stream().anyMatch(item -> item.getClassifierId().equals(classifierId)), listed);
    }

    public void classify_file() throws Exception {
        ClassifiedImages result = classify(new ClassifyOptions.Builder().imagesFile(sample("test-one.png")));
        check(classes(result).equals(Arrays.asList("one")), result);
    }

    public void classify_threshold() throws Exception {
        ClassifiedImages result = classify(new ClassifyOptions.Builder().imagesFile(sample("test-one.png")).threshold(0f));
        check(classes(result).equals(Arrays.asList("one", "zero")), result);
    }

    public void classify_zip() throws Exception {
        ClassifiedImages result = classify(new ClassifyOptions.Builder().imagesFile(sample("tests.zip")));
        check(result.getImages().size() > 1 && result.getImagesProcessed() == result.getImages().size(), result);
    }

    public void classify_url() {
        ClassifiedImages result = classify(new ClassifyOptions.Builder().url(options.imageURL));
        check(classes(result).equals(Arrays.asList("one")), result);
    }

    public void classify_url_error() {
        ServiceResponseException error = refusal(() -> classify(new ClassifyOptions.Builder().url(options.missingURL)));
        check(error.getStatusCode() == 400, error);
        check(error.getMessage().contains("URL Fetcher error: "), error);
    }

    public void retrain() throws Exception {
        Classifier changed = service.updateClassifier(
            new UpdateClassifierOptions.Builder(classifierId)
                .addPositiveExamples("two", sample("two.zip"))
                .addPositiveExamples("one", sample("more-ones.zip"))
                .build()
        ).execute().getResult();
        check(changed.getStatus().equals(Classifier.Status.RETRAINING), changed);
        Classifier ready = waitUntilReady();
        check(names(ready).equals(Arrays.asList("one", "two", "zero")), ready);
    }

    public void core_ml() throws Exception {
        GetCoreMlModelOptions asked = new GetCoreMlModelOptions.Builder(classifierId).build();
        try (InputStream body = service.getCoreMlModel(asked).execute().getResult()) {
            String content = new String(body.readAllBytes(), StandardCharsets.ISO_8859_1);
            check(content.contains("zero"), content.length());
        }
    }

    public void delete() {
        service.deleteClassifier(new DeleteClassifierOptions.Builder(classifierId).build()).execute();
        ServiceResponseException error = refusal(() -> get());
        check(error.getStatusCode() == 404, error);
    }

    public static void main(String[] arguments) throws Exception {
        Options options = new Gson().fromJson(arguments[0], Options.class);
        Steps life = new Steps(options);
        for (String step : options.steps) {
            JsonObject line = new JsonObject();
            line.addProperty("step", step);
            line.add("error", JsonNull.INSTANCE);
            try {
                Steps.class.getMethod(step).invoke(life);
            } catch (InvocationTargetException error) {
                StringWriter trace = new StringWriter();
                error.getCause().printStackTrace(new PrintWriter(trace));
                line.add("error", new JsonPrimitive(trace.toString()));
            }
            System.out.println(line);
        }
        // Its HTTP client keeps threads of its own for a minute.
        System.exit(0);
    }
}
