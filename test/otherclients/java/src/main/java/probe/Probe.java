package probe;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.cloud.NoCredentials;
import com.google.cloud.ReadChannel;
import com.google.cloud.WriteChannel;
import com.google.cloud.storage.Blob;
import com.google.cloud.storage.BlobId;
import com.google.cloud.storage.BlobInfo;
import com.google.cloud.storage.Bucket;
import com.google.cloud.storage.BucketInfo;
import com.google.cloud.storage.BucketInfo.LifecycleRule;
import com.google.cloud.storage.Storage;
import com.google.cloud.storage.Storage.BlobListOption;
import com.google.cloud.storage.Storage.BlobTargetOption;
import com.google.cloud.storage.Storage.ComposeRequest;
import com.google.cloud.storage.Storage.CopyRequest;
import com.google.cloud.storage.StorageBatch;
import com.google.cloud.storage.StorageBatchResult;
import com.google.cloud.storage.StorageException;
import com.google.cloud.storage.StorageOptions;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/**
 * Drives the unmodified google-cloud-storage for Java against the server that STORAGE_EMULATOR_HOST
 * names. Prints a line a check and "N passed, N failed".
 */
public final class Probe {
  private interface Check {
    void run() throws Exception;
  }

  private final Storage storage =
      StorageOptions.newBuilder()
          .setHost(System.getenv("STORAGE_EMULATOR_HOST"))
          .setProjectId("project-1")
          .setCredentials(NoCredentials.getInstance())
          .build()
          .getService();
  private final String bucket = "java-" + System.nanoTime();

  public static void main(String[] args) {
    Probe p = new Probe();
    Map<String, Check> checks = new LinkedHashMap<>();
    checks.put("bucket", p::makeBucket);
    checks.put("objects and ranges", p::objects);
    checks.put("resumable", p::resumable);
    checks.put("preconditions", p::preconditions);
    checks.put("lists", p::lists);
    checks.put("copy and compose", p::copyAndCompose);
    checks.put("versions", p::versions);
    checks.put("batch", p::batch);
    int passed = 0;
    int failed = 0;
    for (Map.Entry<String, Check> c : checks.entrySet()) {
      try {
        c.getValue().run();
        passed++;
        System.out.println("ok    java: " + c.getKey());
      } catch (Exception | AssertionError e) {
        failed++;
        System.out.println("FAIL  java: " + c.getKey() + ": " + e);
      }
    }
    System.out.println(passed + " passed, " + failed + " failed");
    System.exit(failed == 0 ? 0 : 1);
  }

  private static void eq(Object got, Object want) {
    if (!got.equals(want)) {
      throw new AssertionError("got " + got + ", want " + want);
    }
  }

  private static void refused(int status, Check c) throws Exception {
    try {
      c.run();
    } catch (StorageException e) {
      eq(e.getCode(), status);
      return;
    }
    throw new AssertionError("accepted, and must be refused with " + status);
  }

  private Blob put(String name, String data, BlobTargetOption... options) {
    return storage.create(BlobInfo.newBuilder(bucket, name).setContentType("text/plain").build(), data.getBytes(UTF_8), options);
  }

  private String read(String name) {
    return new String(storage.readAllBytes(bucket, name), UTF_8);
  }

  private void makeBucket() throws Exception {
    LifecycleRule rule =
        new LifecycleRule(
            LifecycleRule.LifecycleAction.newDeleteAction(),
            LifecycleRule.LifecycleCondition.newBuilder().setAge(3).build());
    storage.create(BucketInfo.newBuilder(bucket).setLocation("US").setLabels(Map.of("a", "b")).setLifecycleRules(List.of(rule)).build());
    Bucket got = storage.get(bucket);
    eq(got.getLabels(), Map.of("a", "b"));
    eq(got.getLifecycleRules().get(0).getCondition().getAge(), 3);
    refused(409, () -> storage.create(BucketInfo.of(bucket)));
  }

  private void objects() throws Exception {
    String name = "a/日本 b?#%2F.txt";
    Blob blob = put(name, "0123456789");
    eq(read(name), "0123456789");
    try (ReadChannel r = storage.reader(blob.getBlobId())) {
      r.seek(2);
      r.limit(5);
      ByteBuffer b = ByteBuffer.allocate(10);
      while (r.read(b) > 0) {}
      eq(new String(b.array(), 0, b.position(), UTF_8), "234");
    }
    Blob changed = storage.update(blob.toBuilder().setMetadata(Map.of("k", "w")).build());
    eq(changed.getMetadata(), Map.of("k", "w"));
    eq(changed.getMetageneration(), 2L);
    eq(storage.delete(blob.getBlobId()), true);
    if (storage.get(bucket, name) != null) {
      throw new AssertionError("still there");
    }
  }

  private void resumable() throws Exception {
    byte[] data = new byte[3 * 1024 * 1024 + 17];
    new Random(1).nextBytes(data);
    try (WriteChannel w = storage.writer(BlobInfo.newBuilder(bucket, "big").build())) {
      w.setChunkSize(256 * 1024);
      w.write(ByteBuffer.wrap(data));
    }
    eq(Arrays.equals(storage.readAllBytes(bucket, "big"), data), true);
  }

  private void preconditions() throws Exception {
    Blob once = put("once", "1", BlobTargetOption.doesNotExist());
    refused(412, () -> put("once", "2", BlobTargetOption.doesNotExist()));
    refused(412, () -> storage.delete(bucket, "once", Storage.BlobSourceOption.generationMatch(1)));
    refused(412, () -> storage.update(once.toBuilder().setMetadata(Map.of("a", "b")).build(), BlobTargetOption.metagenerationMatch(99)));
    eq(read("once"), "1");
  }

  private List<String> names(BlobListOption... options) {
    List<String> names = new ArrayList<>();
    for (Blob b : storage.list(bucket, options).iterateAll()) {
      names.add(b.getName());
    }
    return names;
  }

  private void lists() {
    for (String name : List.of("l/1", "l/2", "l/d/3", "l/d/4.csv")) {
      put(name, "");
    }
    eq(names(BlobListOption.prefix("l/"), BlobListOption.pageSize(1)), List.of("l/1", "l/2", "l/d/3", "l/d/4.csv"));
    eq(names(BlobListOption.prefix("l/"), BlobListOption.currentDirectory()), List.of("l/1", "l/2", "l/d/"));
    eq(names(BlobListOption.matchGlob("l/**.csv")), List.of("l/d/4.csv"));
    eq(names(BlobListOption.prefix("l/"), BlobListOption.fields(Storage.BlobField.NAME)).size(), 4);
  }

  private void copyAndCompose() {
    put("c/a", "A");
    put("c/b", "B");
    storage.compose(ComposeRequest.of(bucket, List.of("c/a", "c/b"), "c/ab"));
    storage.copy(CopyRequest.of(BlobId.of(bucket, "c/ab"), BlobId.of(bucket, "c/copy"))).getResult();
    eq(read("c/copy"), "AB");
  }

  private void versions() {
    Bucket b = storage.get(bucket);
    b.toBuilder().setVersioningEnabled(true).build().update();
    put("v", "1");
    put("v", "2");
    List<String> texts = new ArrayList<>();
    for (Blob v : storage.list(bucket, BlobListOption.prefix("v"), BlobListOption.versions(true)).iterateAll()) {
      texts.add(new String(storage.readAllBytes(v.getBlobId()), UTF_8));
    }
    eq(texts, List.of("1", "2"));
  }

  private void batch() {
    StorageBatch batch = storage.batch();
    StorageBatchResult<Boolean> there = batch.delete(BlobId.of(bucket, "l/1"));
    StorageBatchResult<Boolean> missing = batch.delete(BlobId.of(bucket, "none"));
    batch.submit();
    eq(there.get(), true);
    eq(missing.get(), false);
  }
}
