import com.siemens.pki.cmpracomponent.configuration.*;
import com.siemens.pki.cmpracomponent.main.CmpRaComponent;
import com.sun.net.httpserver.HttpServer;
import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.cert.Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.*;

/**
 * A CMP registration authority made of Siemens' CmpRaComponent, between our client and a CA that it asks by HTTP.
 * Arguments: a directory with ra.pem, ra-key.der, device-anchors.pem and ca-anchors.pem; a port; the CA's URL.
 * Requests that name the profile "pbm" or "pbmac1" are answered under the shared secret, others by signature.
 */
public class CmpRa {
    static final byte[] SECRET = "nine bean rows".getBytes(StandardCharsets.UTF_8);
    static final byte[] REFERENCE = "gateway-7".getBytes(StandardCharsets.UTF_8);
    static Path home;

    static List<X509Certificate> certificates(String name) throws Exception {
        List<X509Certificate> found = new ArrayList<>();
        try (InputStream in = Files.newInputStream(home.resolve(name))) {
            for (Certificate each : CertificateFactory.getInstance("X.509").generateCertificates(in)) {
                found.add((X509Certificate) each);
            }
        }
        return found;
    }

    static VerificationContext trust(String name) throws Exception {
        List<X509Certificate> anchors = certificates(name);
        return new VerificationContext() {
            public Collection<X509Certificate> getTrustedCertificates() { return anchors; }
            public byte[] getSharedSecret(byte[] senderKid) {
                return Arrays.equals(senderKid, REFERENCE) ? SECRET : null;
            }
        };
    }

    static CredentialContext signer() throws Exception {
        List<X509Certificate> chain = certificates("ra.pem");
        PrivateKey key = KeyFactory.getInstance("EC")
            .generatePrivate(new PKCS8EncodedKeySpec(Files.readAllBytes(home.resolve("ra-key.der"))));
        return new SignatureCredentialContext() {
            public List<X509Certificate> getCertificateChain() { return chain; }
            public PrivateKey getPrivateKey() { return key; }
        };
    }

    static CredentialContext secret(String algorithm) {
        return new SharedSecretCredentialContext() {
            public byte[] getSharedSecret() { return SECRET; }
            public byte[] getSenderKID() { return REFERENCE; }
            public int getIterationCount() { return 1000; }
            public String getPasswordBasedMacAlgorithm() { return algorithm; }
        };
    }

    static CmpMessageInterface side(VerificationContext input, CredentialContext output) {
        return new CmpMessageInterface() {
            public VerificationContext getInputVerification() { return input; }
            public NestedEndpointContext getNestedEndpointContext() { return null; }
            public CredentialContext getOutputCredentials() { return output; }
            public ReprotectMode getReprotectMode() { return ReprotectMode.reprotect; }
            public boolean getSuppressRedundantExtraCerts() { return false; }
            public boolean isCacheExtraCerts() { return false; }
            public boolean isMessageTimeDeviationAllowed(long seconds) { return Math.abs(seconds) < 3600; }
        };
    }

    static byte[] ask(URL url, byte[] message) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) url.openConnection();
        connection.setDoOutput(true);
        connection.setRequestProperty("Content-Type", "application/pkixcmp");
        try (OutputStream out = connection.getOutputStream()) { out.write(message); }
        try (InputStream in = connection.getInputStream()) { return in.readAllBytes(); }
    }

    public static void main(String[] arguments) throws Exception {
        home = Path.of(arguments[0]);
        URL upstream = new URL(arguments[2]);
        VerificationContext devices = trust("device-anchors.pem"), authority = trust("ca-anchors.pem");
        CredentialContext own = signer();
        Map<String, CredentialContext> keyed = new HashMap<>();
        keyed.put("pbm", secret("PASSWORDBASEDMAC"));
        keyed.put("pbmac1", secret("PBMAC1"));
        Configuration configuration = new Configuration() {
            public CkgContext getCkgConfiguration(String profile, int body) { return null; }
            public CmpMessageInterface getDownstreamConfiguration(String profile, int body) {
                return side(devices, keyed.getOrDefault(profile, own));
            }
            public int getDownstreamTimeout(String profile, int body) { return 20; }
            public VerificationContext getEnrollmentTrust(String profile, int body) { return authority; }
            public boolean getForceRaVerifyOnUpstream(String profile, int body) { return false; }
            public InventoryInterface getInventory(String profile, int body) { return null; }
            public int getRetryAfterTimeInSeconds(String profile, int body) { return 1; }
            public SupportMessageHandlerInterface getSupportMessageHandler(String profile, String oid) { return null; }
            public CmpMessageInterface getUpstreamConfiguration(String profile, int body) {
                return side(authority, own);
            }
            public boolean isRaVerifiedAcceptable(String profile, int body) { return false; }
        };
        CmpRaComponent.CmpRaInterface ra = CmpRaComponent.instantiateCmpRaComponent(
            configuration, (message, profile, body) -> ask(upstream, message));
        HttpServer server = HttpServer.create(
            new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.parseInt(arguments[1])), 0);
        server.createContext("/", exchange -> {
            byte[] answer;
            try {
                answer = ra.processRequest(exchange.getRequestBody().readAllBytes());
            } catch (Exception error) {
                error.printStackTrace();
                exchange.sendResponseHeaders(500, -1);
                return;
            }
            exchange.getResponseHeaders().set("Content-Type", "application/pkixcmp");
            exchange.sendResponseHeaders(200, answer.length);
            try (OutputStream out = exchange.getResponseBody()) { out.write(answer); }
        });
        server.start();
    }
}
